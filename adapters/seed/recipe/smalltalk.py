"""Base skill: small talk that remembers what the user told, English and Chinese."""

from words import ANIMALS, CITIES, FOODS, JOBS, ZCITY, ZFOOD, ZN, A, U, cap, name, pick


def smalltalk(r):
    if r.random() < 0.3:
        n, c, f = (r.choice(ZN), r.choice(ZCITY), r.choice(ZFOOD))
        facts = [
            (
                pick(r, f"我叫{n}。", f"你好，我是{n}。", f"我的名字是{n}。"),
                f"{pick(r, '你好', '很高兴认识你')}，{n}！",
                ["我叫什么名字？", "我是谁？", "你还记得我的名字吗？"],
                f"你叫{n}。",
                n,
            ),
            (
                pick(r, f"我住在{c}。", f"我家在{c}。"),
                pick(r, f"{c}是个好地方。", f"好的，{c}。"),
                ["我住在哪里？", "我家在哪个城市？"],
                f"你住在{c}。",
                c,
            ),
            (
                pick(r, f"我喜欢{f}。", f"我最爱吃{f}。"),
                f"{f}{pick(r, '很好吃', '真不错')}。",
                ["我喜欢什么？", "我爱吃什么？"],
                f"你喜欢{f}。",
                f,
            ),
        ]
        chat = [
            ("你好！", "你好！有什么可以帮你？"),
            ("你好吗？", "我很好，谢谢！"),
            ("谢谢你。", "不客气！"),
            ("再见。", "再见，祝你愉快！"),
            ("你能做什么？", "我可以聊天、查找、分类和计算。"),
            ("早上好！", "早上好！"),
        ]
    else:
        n, c, f, j, p = name(r), r.choice(CITIES), r.choice(FOODS), r.choice(JOBS), name(r)
        an = r.choice(ANIMALS)
        facts = [
            (
                pick(r, f"My name is {n}.", f"Hi, I am {n}.", f"Hello, I'm {n}!", f"Call me {n}."),
                pick(r, f"Nice to meet you, {n}!", f"Hello {n}!"),
                ["What is my name?", "Who am I?", "Do you remember my name?", "What am I called?"],
                f"Your name is {n}.",
                n,
            ),
            (
                pick(r, f"I live in {c}.", f"I am from {c}.", f"My home is in {c}."),
                pick(r, f"{c} is a nice place.", f"I see, {c}."),
                ["Where do I live?", "What is my city?", "Where am I from?"],
                f"You live in {c}.",
                c,
            ),
            (
                pick(r, f"I like {f}.", f"My favorite food is {f}.", f"I love {f}."),
                pick(r, f"{cap(f)} sounds good.", "Good choice!"),
                ["What do I like?", "What is my favorite food?"],
                f"You like {f}.",
                f,
            ),
            (
                pick(r, f"I am a {j}.", f"I work as a {j}.", f"My job is {j}."),
                pick(r, f"Being a {j} is interesting.", "That is good work."),
                ["What is my job?", "What do I do for work?"],
                f"You are a {j}.",
                j,
            ),
            (
                pick(r, f"I have a {an} called {p}.", f"My {an} is named {p}."),
                f"{p} is a lovely name for a {an}.",
                [f"What is my {an} called?", f"What is the name of my {an}?"],
                f"Your {an} is called {p}.",
                p,
            ),
        ]
        chat = [
            ("Hello!", "Hello! How can I help you?"),
            ("Hi there.", "Hi! What can I do for you?"),
            ("How are you?", "I am fine, thank you. How are you?"),
            ("Thank you!", "You are welcome!"),
            ("Thanks a lot.", "My pleasure!"),
            ("Good morning.", "Good morning! How can I help you?"),
            ("What can you do?", "I can chat, look things up in a text, sort, copy and calculate."),
            ("Who are you?", "I am a small assistant."),
            ("Goodbye.", "Goodbye, have a nice day!"),
            ("Tell me something nice.", "You are doing well today."),
            ("I am tired.", "Then take a short break."),
            ("I am looking for help.", "How can I help you?"),
            ("It is my turn.", "Then go ahead!"),
        ]
    told = r.sample(facts, r.randint(1, min(3, len(facts))))
    m = []
    for say, reply, *_ in told:
        if r.random() < 0.35:
            u, a = r.choice(chat)
            m += [U(u), A(a)]
        m += [U(say), A(reply)]
    if r.random() < 0.4:
        u, a = r.choice(chat)
        m += [U(u), A(a)]
    r.shuffle(told)
    for t in told[: r.randint(1, 2)]:
        m += [U(r.choice(t[2])), A(t[3])]
        key = t[4]
    return m, key
