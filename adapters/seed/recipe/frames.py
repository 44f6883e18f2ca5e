"""Questions about one fact: many wordings per kind of fact, in a small grammar.

A wording is text with `{x}` for the thing asked about; `[a|b]` picks one part at random, `{n}` and `{z}` are people.

- BASE    the wordings that the base model has seen (with things it does not know, or with a text that explains them)
- TRAIN   further wordings that only the adapters are trained on
- HELD    held out: used for evaluation only, written in the same family of language as TRAIN
- FREE    held out and freer: written once as a last test, with words and turns that no training wording has

Does not know any fact: see `worlds.py`.
"""

import random
import re

BASE = {
    "meaning": [
        "[What is|What's] [code |message |error |]{x}?",
        "[Tell|Show] me what [code |]{x} [means|says|is about].",
        "[Do you know|Can you say] what {x} [means|is]?",
        "{x} [appeared|showed up|came up|is] on the [display|panel|sheet|letter|list]. "
        "[What is it about|What does it say|What is meant|What is this]?",
        "{n} [saw|noted|mentioned|reported|found] {x} [yesterday|today|in an email|at the desk|on the screen]. "
        "[What is meant|What does it mean|What is that]?",
        "[I|We] [saw|read|got|found] [the code |]{x}[ on a form| in a message| today|]. "
        "[Please explain.|What could it be?|What is meant by it?]",
        "[Please give|Give|Please write|Write] me [a short explanation|the description|the definition] of {x}.",
        "How is {x} [defined|described|explained]?",
        "Which [problem|event|thing|case] [does {x} describe|is {x}|belongs to {x}]?",
        "{x}: [meaning|what is it|description]?",
    ],
    "action": [
        "[What is|Tell me|Give me|I need] the [step|action|instruction|reaction|rule] for {x}[.|, please.]",
        "{x} [appeared|showed up|is active|occurred|was reported]. "
        "[What should we do?|What now?|What must be done first?|How do we react?]",
        "What [do I|must I|should I|can we] do [when|if] {x} [comes|shows up|is on|happens]?",
        "How [do|should|must] [I|we] [react to|deal with|solve|work on] {x}?",
        "{n} [reports|has|sees] {x}. [What is to be done?|Which step comes next?|What should I do?]",
        "[Instruction|Procedure|Measure|Reaction] for {x}?",
        "Tell me how to [react to|solve|handle] {x}.",
        "With {x}, what [is to be done|happens next|do I do]?",
    ],
    "term": [
        "[Long form|Full words|Full name] of {x}?",
        "What [is|are] the [words|long form|full words] [behind|of|for] {x}?",
        "{x} is short for what?",
        "[The letter|The form|{n}|My colleague] [uses|says|mentions] {x}. "
        "[What is it short for?|What is the long form?|Which words?]",
        "Write [out|down] [the abbreviation |]{x}[ in long form|].",
        "I do not [know|understand] the [abbreviation|short form] {x}.",
        "What is {x} in [long|full] words?",
        "{x} means which words?",
    ],
    "limit": [
        "[How much|How high a] {x} is [permitted|possible|ok]?",
        "[Maximum|Limit|Top value|Upper value] [for|of] {x}?",
        "[Tell me|I need] the [limit|maximum|largest value] [for|of] {x}.",
        "What is the [highest|largest|greatest] {x}[ that is possible|]?",
        "How [far|high] can {x} go?",
        "{n} asks about {x}. What is the [limit|maximum]?",
        "Is there a [maximum|cap|bound] for {x}?",
        "Up to how much can {x} be?",
    ],
    "contact": [
        "Who [works on|takes care of|knows about|deals with] {x}?",
        "Who do I [ask|call|write to] about {x}?",
        "[Name|Tell me|I need] the [person|contact|colleague] for {x}.",
        "[Contact|Person|Phone] for {x}?",
        "{n} has a [problem|question] [with|about] {x}. Who can help?",
        "I want to talk to somebody about {x}.",
        "Whom should [we|{n}] [ask|contact] [for|about] {x}?",
        "Which person is there for {x}?",
    ],
    "zh_meaning": [
        "[请问|你好，|]{x}是[什么|啥|什么意思]？",
        "[告诉我|说说|讲讲]{x}[是什么|的意思]。",
        "[机器上|屏幕上|单子里|邮件里][有|出现]{x}，[什么情况|怎么回事|是什么意思]？",
        "{x}[表示|说明|指][什么|哪种情况]？",
        "[我|{z}][看见|收到|发现]了{x}，[这是什么|请解释|是什么意思]？",
    ],
    "zh_contact": [
        "[请问|你好，|]{x}[找谁|联系谁|归谁管|谁来管]？",
        "[我要|想|需要][办|问]{x}，[找谁|联系哪位]？",
        "{x}的[联系人|负责人|同事]是[谁|哪位]？",
        "[告诉我|我要]{x}的联系人。",
    ],
}

TRAIN = {
    "meaning": [
        "What does {x} mean?",
        "My screen shows {x}. What is it?",
        "Explain code {x} to me.",
        "I got the code {x}, what is that?",
        "Meaning of {x}?",
        "Could you tell me the meaning of code {x}?",
        "{x}?",
        "[What|What exactly] does [the code |code |]{x} [refer to|signify|indicate|tell us|describe|stand for]?",
        "[Describe|Explain|Define|Decode|Interpret|Translate|Clarify] [the code |code |message |]{x}"
        "[ for me| briefly| in one sentence| in short| please|].",
        "[Can you|Could you|Would you] [describe|explain|decode|interpret] [code |message |]{x}"
        "[ for me| briefly| in simple words| to a colleague|]?",
        "Please [explain|decode|interpret|clarify] [code |the code |]{x}[ briefly| in a sentence|].",
        "[A note|The report|This letter|My list|The file|The paper] [says|shows|mentions|contains] {x}. "
        "[What does that mean?|What does it refer to?|What is it?|What is that about?|Please explain.]",
        "[What|Which] [problem|issue|fault|event|situation] is [behind|described by|meant by|called] {x}?",
        "[Definition|Description|Explanation] of [code |]{x}[, please|]?",
        "What is the [definition|description|explanation|sense] of [code |]{x}?",
        "[Give|Send|Write] me [the meaning|a description|a definition|an explanation] of {x}[ briefly|].",
        "I [do not|don't] [know|understand] [the code |code |]{x}. "
        "[What is it?|What does it mean?|Can you explain?|What does it describe?]",
        "What [happened|is wrong|is going on|is the matter|is the problem] [when|if] "
        "[the display|the screen|the paper] [says|shows|reads] {x}?",
        "Why do [I|we] [see|get|read] {x}[ here| today|]?",
        "[Someone|A customer|A visitor|The manager|{n}] [wrote|sent|asked about|pointed at|typed|entered] {x}"
        "[ in an email| on a form| yesterday|]. "
        "[What does it mean?|What is meant by that?|Explain it.|What is it about?]",
        "{x}, what [is|was] that[ again|]?",
        "I forgot what {x} [means|is|was|refers to|describes].",
        "Look up {x}[ for me|].",
        "Say in a few words what {x} [is|means].",
        "Is {x} [something serious|a problem|dangerous]? What [does it mean|is it]?",
        "[My colleague|The manager|{n}] [wants to know|asks] what {x} [means|stands for|refers to].",
        "[The log|The book|My notes|A form] [has|have|reads] {x}. "
        "[What is described there?|What is meant?|What is this?]",
        "What [kind|sort|type] of [problem|issue|fault|case] is {x}?",
        "[Help me understand|I want to understand|I need to know about] {x}.",
    ],
    "action": [
        "What should I do about {x}?",
        "How do I handle {x}?",
        "We have {x} here. What is the next step?",
        "Which action is required for {x}?",
        "{x} came up, what do we do now?",
        "How should I respond to {x}?",
        "[What is|Tell me|Show me|Describe|Explain|Give me|I need] the [right|proper|required|next|first|usual] "
        "[procedure|step|action|measure|instruction] [for|on|after|in case of] {x}[, please|].",
        "[When|If|As soon as] {x} [appears|comes up|shows up|is shown|happens|is on], "
        "what [must|should|do] [we|I|they] do?",
        "How [must|should|do|can] [we|I|they] [proceed|act|respond|go on] [with|after|in case of|when there is] {x}?",
        "I [must|need to|want to] [fix|handle|solve|resolve|clear] {x}. "
        "[How?|What do I do?|What is the procedure?|What now?|Which steps are needed?]",
        "What [must|has to|should|needs to] be done [about|with|for|after|because of] {x}?",
        "[Someone|A customer|A visitor|The manager|{n}] [wrote|reported|called about|asked about|complains about] {x}. "
        "[What should I do?|How do we react?|Which action is needed?|What must be done?|Tell me what to do.]",
        "[The report|My screen|The file|A note|The list|The log] [says|shows|mentions|reads] {x}. "
        "[What should I do?|What is the procedure?|What do we do now?|How should we act?|How do I react?]",
        "[Solution|Remedy|Steps|Instructions|Actions|To do] for {x}?",
        "How to [fix|handle|solve|treat|process] {x}?",
        "What does the [rule|handbook|manual|procedure] [tell us to do|say we do|want us to do] [for|on|with] {x}?",
        "[Give me|I need|Send me] [directions|the steps|advice|a plan] for {x}.",
        "What would you do [about|with|after] {x}?",
        "{x} is [here|back|on again]! [What now?|What do I do?|What is to be done?|How do we handle it?]",
        "Code {x} again. What do I have to do?",
        "What [is necessary|is needed|is required|is the rule] [when|if] {x} [appears|occurs|comes up|is shown]?",
        "Which [measure|step|action|work] [follows|comes after|is needed for|is right for] {x}?",
        "[Describe|Explain] [what to do|how to act|how to react|the steps] [for|on|after|with] "
        "{x}[ in short| briefly|].",
        "[My colleague|The manager|{n}] [wants to know|asks] [what to do|how to react|how to proceed] "
        "[about|with|after] {x}.",
        "I [saw|got|found|read] {x}[ in the report| on the screen| in my notes|]. "
        "[What do I do?|How do I handle it?|Which steps follow?|What has to be done?]",
        "[What|Which steps] do [we|they|you] [do|take] [about|with|for] {x}?",
        "Please [tell|show] [me|us] how to [handle|fix|treat|deal with] {x}.",
        "Can [we|I] do something [with|against] {x}? [What?|How?]",
        "Who must do what [with|after|on] {x}?",
    ],
    "term": [
        "What does {x} stand for?",
        "What is the full form of {x}?",
        "People here say {x}. What do they mean?",
        "Spell out {x} for me.",
        "I am new here. What is {x}?",
        "Expand the abbreviation {x}.",
        "Say {x} [in full words|with all words].",
        "Which [words|long form|full name] [does|do] {x} [stand for|shorten|replace]?",
        "[The report|My file|The form|The manager|{n}|A customer] [says|uses|writes|has] {x}. "
        "[What does it stand for?|Which words are behind it?|What is the full form?|What is that short for?]",
        "What do the letters {x} [mean|stand for]?",
        "[Full form|Long version|Expansion|All words] of {x}[, please|]?",
        "[Which words|What words|Which expression] [is|are] [shortened|abbreviated] [as|to] {x}?",
        "I [saw|read|heard] {x}. [What is it short for?|What are the full words?|Which words are that?]",
        "The abbreviation {x} is [new to me|not clear]. [What does it stand for?|Full words, please.]",
        "Explain the [abbreviation|short form|letters] {x}.",
        "How do I [read|say|write] {x} in full words?",
        "[Tell|Show|Give] me the [full form|full words|long form|whole name] [of|for|behind] {x}.",
        "[Can|Could] you [expand|spell out|write out] {x}[ for me|]?",
        "[My colleague|The note|The list] only [uses|has|shows] the [letters|short form] {x}. "
        "[What is the long form?|Which words?]",
        "What is the whole [name|expression] [for|of|behind] {x}?",
        "{x} [stands for|is an acronym for] [what|which words]?",
        "Please [expand|spell out|explain] the [letters|abbreviation|acronym] {x}.",
        "What [does|did] [{n}|my colleague|the manager] mean by {x}?",
    ],
    "limit": [
        "What is the limit for {x}?",
        "How high may {x} be?",
        "Give me the maximum for {x}.",
        "Which limit applies to {x}?",
        "What is the upper bound of {x}?",
        "Is there a limit on {x}?",
        "[What|Which] [value|number|amount|figure] is the [most|highest|maximum] [for|of] {x}?",
        "[How much|What] is allowed [for|as] {x}?",
        "Our {x}: what is the [cap|limit|maximum|bound]?",
        "What {x} [is still ok|is permitted|is allowed|may we have]?",
        "[Tell|Show|Give] me the [allowed|permitted|greatest|largest] {x}.",
        "Where [is|lies] the [limit|upper bound] [for|of] {x}?",
        "[Can you|Could you] [tell me|say|give me] the [limit|maximum] [for|of] {x}?",
        "What [must|should|can] {x} not [exceed|pass|go over]?",
        "{x}, how much at [most|the most]?",
        "[I|We] want to know the [cap|maximum|limit] [for|of] {x}.",
        "How [long|large|big|much] can {x} be at most?",
        "[My colleague|{n}|A customer] [needs|asks for] the [maximum|limit|highest value] [of|for] {x}.",
        "[Limit|Maximum|Cap] [on|for] {x}, please.",
        "Which [maximum|cap|bound|upper value] [holds|applies|is set] for {x}?",
        "Say how [much|high|large] {x} [may|can] be.",
        "What is the [rule|limit value|set value] for {x}?",
        "Do we have a [limit|cap|maximum] [on|for] {x}?",
        "What is [allowed|permitted|the most] [as|for] {x}?",
        "Please [tell|give|show] me the [limit|maximum|cap] [on|of|for] {x}.",
    ],
    "contact": [
        "Who is responsible for {x}?",
        "Who can help me with {x}?",
        "Whom do I call about {x}?",
        "I have a question about {x}. Who knows?",
        "Which colleague handles {x}?",
        "Give me the contact for {x}.",
        "[Who|Which person|Which colleague] "
        "[is in charge of|answers questions about|looks after|is the contact for|knows] {x}?",
        "Whose [job|work|task] is {x}?",
        "[Where|To whom] [can|should|must] [I|we] [turn|go|write] [with|about|in case of] [a question about |]{x}?",
        "I [have|got] a [problem|question|request|complaint] [about|with|on] {x}. "
        "[Whom do I call?|Who can help?|Who is responsible?|Where do I go?]",
        "[Please|Can you] [connect|put] me [with|through to] [the person|somebody|the colleague] for {x}.",
        "[Who|Whom] [should I|may I|can I] [call|ask|contact] [for|about|on] {x}?",
        "[Extension|Number|Phone number|Name] for {x}[, please|]?",
        "I [need|want] [help|advice|somebody|someone] [with|on|for] {x}.",
        "[Tell|Show] me who [handles|looks after|is responsible for|works on] {x}.",
        "[A customer|A visitor|{n}|The manager] [asks about|needs help with|wants to talk about] {x}. "
        "[Who is in charge?|Whom should we call?|Who can help?|Who knows about it?]",
        "Please [give|tell] me the [name|extension|contact|person] for {x}.",
        "[We|I] [are|am] looking for [somebody|a colleague|a contact|help] [for|with|on] {x}.",
        "Is there [somebody|a colleague|a person] for {x}?",
        "What is the [name|extension|number] of the [person|colleague|contact] for {x}?",
        "Which [extension|number|name|office] [is right|is there|do I need] for {x}?",
        "[I|We] [must|need to|want to] [talk|write] to the [person|colleague] for {x}. Who is it?",
        "Who [does|leads|answers for] {x}?",
    ],
    "zh_meaning": [
        "代码{x}是什么意思？",
        "{x}代表什么？",
        "请解释一下{x}。",
        "屏幕显示{x}，这是什么？",
        "{x}的含义是什么？",
        "我看到{x}，什么意思？",
        "[请|帮我|麻烦][解释|描述|翻译][一下|][代码|]{x}。",
        "[代码|编号|]{x}[究竟|到底|][指|表示|代表|意味着][什么|什么问题|哪种故障]？",
        "[报告|日志|通知|信]里[有|提到|写了]{x}，[是什么意思|怎么理解|请说明|怎么解释]？",
        "[不明白|不懂|不清楚]{x}，[请解释|是什么]。",
        "{x}的[意思|解释|说明|定义]是什么？",
        "[什么|啥]是{x}？",
        "[客户|经理|同事][问|想知道]{x}是什么[意思|]。",
        "[我忘了|不知道]{x}[指什么|是什么意思|代表什么]。",
        "{x}[怎么理解|怎么解释|是怎么回事|什么意思]？",
        "请说说{x}[是什么|指的是什么|的含义]。",
        "{x}？",
    ],
    "zh_contact": [
        "{x}由谁负责？",
        "{x}的事找谁？",
        "关于{x}应该联系谁？",
        "谁负责{x}？",
        "请给我{x}的联系人。",
        "我想咨询{x}，找哪位？",
        "[哪位|哪个同事|谁][处理|管理|主管|了解]{x}？",
        "[处理|咨询|了解]{x}[找谁|联系谁|该找哪位|要问谁|找什么人]？",
        "{x}[有问题|出问题|的问题|业务][找谁|问谁|联系谁|谁负责]？",
        "[请|麻烦]告诉我{x}[找谁|由谁负责|的分机]。",
        "[客户|经理|同事]想[问|办]{x}，[找谁|谁能帮忙]？",
        "我[有|遇到]{x}的问题，[谁能帮我|联系谁|找哪位]？",
        "[要办|要问]{x}，[联系谁|问谁|找哪个同事]？",
        "{x}[归谁负责|哪位负责|谁在管|找哪个人]？",
        "[谁|哪位][能帮我办|可以处理|懂]{x}？",
        "{x}方面[找谁|谁负责|联系哪位]？",
    ],
    "identity": [
        "Who are you?",
        "What are you?",
        "Introduce yourself.",
        "[Who|What] are you[ exactly| here|, please|]?",
        "[Which|What] [company|house|business] [are you from|do you work for|do you belong to]?",
        "What is your [job|role|task]?",
        "Where do you work?",
        "For whom do you work?",
        "Who am I [talking|speaking|writing] to?",
        "Tell me [about yourself|who you are].",
        "[Can you|Could you|Would you] introduce yourself?",
        "[Who|What] is this [assistant|service]?",
        "Whom do you [work for|help|serve]?",
        "Are you [an assistant|a person|a program]?",
        "Say who you are.",
        "I would like to know who you are.",
        "What is your place of work?",
        "Which [assistant|service] is this?",
    ],
}

HELD = {
    "meaning": [
        "Someone wrote {x} in the report. What does that refer to?",
        "Please describe code {x} in a few words.",
        "Which problem does {x} indicate?",
        "I found {x} in my notes. Can you explain it?",
        "Could you define {x} for a new colleague?",
        "The customer asks what {x} is about.",
        "We read {x} in the log. What is meant?",
        "What is the sense behind {x}?",
    ],
    "action": [
        "Tell me the right procedure when {x} appears.",
        "I have to deal with {x}. What must be done?",
        "Which steps do we take when {x} comes up?",
        "What is the correct reaction to {x}?",
        "{x} is on the screen. How do I proceed?",
        "Please give me instructions for {x}.",
        "Is there something to do about {x}?",
        "What does the team have to do after {x}?",
    ],
    "term": [
        "The note only says {x}. Which words are meant?",
        "Can you write {x} in full?",
        "What is the long version of the letters {x}?",
        "Which full name belongs to {x}?",
        "{x} is an abbreviation of what?",
        "Please say the whole words for {x}.",
        "My colleague uses the short form {x}. What is it in full?",
        "Tell me what {x} is short for.",
    ],
    "limit": [
        "Up to which value is {x} allowed?",
        "I need the highest permitted {x}.",
        "What is the cap on {x}?",
        "Which value may {x} not exceed?",
        "Please tell me how much {x} is allowed.",
        "The manager wants to know the limit of {x}.",
        "How large may {x} get?",
        "Say the maximum value for {x}.",
    ],
    "contact": [
        "I am looking for the person in charge of {x}.",
        "Where do I turn to with a problem about {x}?",
        "Which number do I call for {x}?",
        "Who is the right person for {x}?",
        "Please tell me whom to ask about {x}.",
        "A customer has a problem with {x}. Who can help him?",
        "I need to speak to the colleague in charge of {x}.",
        "Who manages {x} here?",
    ],
    "zh_meaning": [
        "报告里写着{x}，指的是什么？",
        "麻烦说明{x}的意思。",
        "{x}这个代码怎么解释？",
        "请告诉我{x}指什么。",
        "{x}说明了什么问题？",
        "麻烦讲一下{x}是什么。",
    ],
    "zh_contact": [
        "办理{x}要找什么人？",
        "{x}方面的问题问谁好？",
        "处理{x}的同事是谁？",
        "想办{x}，应该问哪位？",
        "请问{x}这块归谁负责？",
        "{x}要联系哪个人？",
    ],
    "identity": [
        "What kind of assistant are you?",
        "Please introduce yourself briefly.",
        "Who is answering here?",
        "Which place do you work for?",
    ],
}

FREE = {
    "meaning": [
        "Why is there a {x} on my printout?",
        "Do you happen to know {x}?",
        "My boss pointed at {x} and I had no idea what it was.",
        "There is a sticker with {x} on the door, what is it telling us?",
    ],
    "action": [
        "Walk me through {x}.",
        "{x} just popped up, help me out: what now?",
        "What's the plan if we run into {x}?",
        "Somebody has to take care of {x}. What exactly must he do?",
    ],
    "term": [
        "Unpack {x} for me.",
        "What would {x} be if nobody had shortened it?",
        "I keep hearing {x}, what is that supposed to be?",
        "How would you write {x} without shortening?",
    ],
    "limit": [
        "Is there a ceiling for {x}?",
        "When does {x} become too much?",
        "How far may I push {x}?",
        "What would be too high for {x}?",
    ],
    "contact": [
        "Somebody must know about {x}, but who?",
        "Hook me up with the expert on {x}.",
        "Who should get my mail about {x}?",
        "Got a name and an extension for {x}?",
    ],
    "zh_meaning": ["看不懂{x}，能说说吗？", "{x}又是啥情况？"],
    "zh_contact": ["{x}谁最懂？", "有没有人管{x}？"],
    "identity": ["And you are?", "Whose assistant are you?"],
}

OPEN = ["", "", "", "", "Hello, ", "Please help. ", "Quick question: ", "I am new here. ", "Excuse me, "]
OPEN += ["A colleague asks: ", "One more thing. ", "Sorry to ask. ", "Good morning. ", "It is urgent. "]
OPEN += ["My boss wants to know: "]
CLOSE = ["", "", "", "", " Thanks!", " Please answer.", " I need it today.", " Thank you.", " Be brief."]
ASKERS = "Anna Ben Carla David Greta Hugo Maria Samir Yara Ivan Noah Priya".split()
ZH_ASKERS = "小李 小王 同事 客户 老板".split()


def expand(r: random.Random, wording: str, x: str) -> str:
    """One text of the wording: parts picked by `r`, people and `x` filled in."""
    while "[" in wording:
        wording = re.sub(r"\[([^\[\]]*)\]", lambda m: r.choice(m[1].split("|")), wording)
    return wording.replace("{n}", r.choice(ASKERS)).replace("{z}", r.choice(ZH_ASKERS)).replace("{x}", x)


def ask(r: random.Random, kind: str, x: str, wordings: dict[str, list[str]] = BASE) -> str:
    """A random question about `x`; English ones may get an opener and a closer."""
    text = expand(r, r.choice(wordings[kind]), x)
    if kind.startswith("zh"):
        return text
    return r.choice(OPEN) + text[0].upper() + text[1:] + r.choice(CLOSE)


def training(kind: str) -> list[str]:
    """All wordings that an adapter may be trained on."""
    return BASE.get(kind, []) + TRAIN[kind]


def matcher(wording: str) -> re.Pattern:
    """A pattern of all texts of a wording, whatever the `{x}`: it shows that no held-out one is a training one."""
    parts = re.split(r"(\[[^\]]*\]|\{[nxz]\})", wording)
    names = {"{n}": "|".join(ASKERS), "{z}": "|".join(ZH_ASKERS), "{x}": r"\{x\}"}

    def piece(p: str) -> str:
        if p.startswith("["):
            return "(?:" + "|".join(names.get(o, re.escape(o)) for o in p[1:-1].split("|")) + ")"
        return f"(?:{names[p]})" if p in names else re.escape(p)

    return re.compile("".join(map(piece, parts)), re.IGNORECASE)


def check() -> None:
    """Raises if a held-out wording could come out of a training wording."""
    for kind in TRAIN:
        for held in HELD[kind] + FREE[kind]:
            for known in training(kind):
                assert not matcher(known).fullmatch(held), f"{held!r} is a training wording: {known!r}"
