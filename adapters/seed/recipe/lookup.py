"""Base skills: look something up in a given text; refuse when no text says it."""

from frames import ask
from lexicon import INDUSTRIES, LEX, TERMS, split
from smalltalk import smalltalk
from words import (
    ABSTRACT,
    CITIES,
    PLACES,
    THINGS,
    ZCITY,
    ZN,
    ZPLACE,
    ZTHING,
    A,
    U,
    act,
    cap,
    code,
    fake,
    idk,
    name,
    phrase,
    pick,
    zphrase,
)

ASKED = dict(
    code="meaning",
    action="action",
    term="term",
    limit="limit",
    phone="contact",
    zcode="zh_meaning",
    zphone="zh_contact",
)


def lookup(r, force_missing=None, codes=()):
    """A short text with 2-5 entries, then 1-3 questions; sometimes one about a thing that the text does not contain.

    `codes` are codes that a world explains otherwise: half of a list of codes then comes from them.
    """
    kind, n = (
        pick(
            r,
            "code",
            "code",
            "action",
            "term",
            "person",
            "attr",
            "phone",
            "hours",
            "limit",
            "zcode",
            "zperson",
            "zphone",
            "zprice",
        ),
        r.randint(2, 5),
    )
    zh = kind.startswith("z")
    uniq = lambda f, k: list({f(r): 0 for _ in range(4 * k)})[:k]
    entry = lambda r: r.choice(codes) if codes and r.random() < 0.5 else code(r)
    if kind == "code":
        ks = uniq(entry, n + 1)
        vs = uniq(phrase, n)
        f = pick(
            r,
            "{k}: {v}",
            "{k} means {v}.",
            "Code {k} stands for {v}.",
            "{k} = {v}",
            "| {k} | {v} |",
            "If you see {k}, it is {v}.",
        )
        qs, ans = (
            [
                "What does {k} mean?",
                "What is {k}?",
                "Explain {k}.",
                "What does the text say about {k}?",
                "{k}?",
                "The display shows {k}. What does it tell me?",
                "Which meaning has code {k}?",
            ],
            pick(r, "{k} means {v}.", "{k} means {v}.", "{K}: {v}."),
        )
    elif kind == "action":
        ks = uniq(entry, n + 1)
        vs = uniq(act, n)
        f = pick(r, "{k}: {v}", "On {k}, {v}.", "For {k}: {v}.", "If {k} comes up, {v}.")
        qs, ans = (
            [
                "What must I do on {k}?",
                "What to do for {k}?",
                "Action for {k}?",
                "There is a {k}. How should we react?",
                "What is the step for {k}?",
            ],
            pick(r, "For {k}, {v}.", "{V}."),
        )
    elif kind == "term":
        ks = uniq(
            lambda r: pick(
                r,
                r.choice(TERMS.split("\n")).split(" ")[0],
                "".join(r.choice("ABCDEFGHIKLMNOPRSTUX") for _ in range(r.choice([2, 3]))),
            ),
            n + 1,
        )
        vs = uniq(phrase, n)
        f = pick(r, "{k}: {v}", "{k} = {v}", "{k} stands for {v}.", "{k} ({v})")
        qs, ans = ["What is {k}?", "{k}?"], pick(r, "{k} stands for {v}.", "{k} stands for {v}.", "{V}.")
    elif kind == "person":
        ks = uniq(name, n + 1)
        vs = [r.choice(CITIES) for _ in range(n)]
        f = pick(r, "{k} lives in {v}.", "{k} comes from {v}.", "{k}: {v}", "{k} moved to {v} last year.")
        qs, ans = (
            ["Where does {k} live?", "Which city belongs to {k}?", "Where is {k}?", "City of {k}?"],
            "{k} lives in {v}.",
        )
    elif kind == "attr":
        a = r.choice(ABSTRACT)
        ks = r.sample(THINGS, n + 1)
        vs = [f"{r.randint(2, 999)}" for _ in range(n)]
        f = "The " + a + pick(r, " of the {k} is {v}.", " of the {k}: {v}", " for the {k} = {v}")
        qs, ans = (
            [f"What is the {a} of the {{k}}?", f"Tell me the {a} for the {{k}}.", f"{a.capitalize()} of the {{k}}?"],
            f"The {a} of the {{k}} is {{v}}.",
        )
    elif kind == "phone":
        ks = r.sample(PLACES + [t.split()[0] for i in INDUSTRIES for t in split(LEX[i]["topic"])], n + 1)
        vs = [f"{name(r)} at extension {r.randint(100, 999)}" for _ in range(n)]
        f = pick(r, "{k}: {v}", "For {k}, call {v}.", "{k} - {v}")
        qs, ans = (
            ["Who is the contact for {k}?", "Whom can I call about {k}?", "Contact for {k}?", "Who works on {k}?"],
            "For {k}, call {v}.",
        )
    elif kind == "hours":
        ks = r.sample(PLACES, n + 1)
        vs = [f"{r.randint(6, 11)}:{pick(r, '00', '30')}" for _ in range(n)]
        f = pick(r, "The {k} opens at {v}.", "{k} {v}", "Opening of the {k}: {v}")
        qs, ans = (
            ["When does the {k} open?", "Opening time of the {k}?", "At what time can I go to the {k}?"],
            "The {k} opens at {v}.",
        )
    elif kind == "limit":
        ks = r.sample([t for i in INDUSTRIES for t in split(LEX[i]["limit"])], n + 1)
        vs = [f"{r.randint(2, 99)} {r.choice(split(LEX[r.choice(INDUSTRIES)]['unit']))}" for _ in range(n)]
        f = pick(r, "Limit for {k}: {v}.", "The {k} may be at most {v}.", "{k} <= {v}")
        qs, ans = (
            ["What is the limit of {k}?", "How much {k} is allowed?", "Maximum {k}?", "Limit of {k}?"],
            "The limit for {k} is {v}.",
        )
    elif kind == "zcode":
        ks = uniq(entry, n + 1)
        vs = uniq(zphrase, n)
        f = pick(r, "{k}：{v}", "代码{k}表示{v}。", "{k}是{v}。")
        qs, ans = ["{k}是什么？", "代码{k}什么意思？", "{k}表示什么？", "说说{k}。"], "{k}是{v}。"
    elif kind == "zperson":
        ks = r.sample(ZN, n + 1)
        vs = [r.choice(ZCITY) for _ in range(n)]
        f = pick(r, "{k}住在{v}。", "{k}来自{v}。", "{k}：{v}")
        qs, ans = ["{k}住在哪里？", "{k}在哪个城市？"], "{k}住在{v}。"
    elif kind == "zphone":
        ks = r.sample(ZPLACE + [t for i in INDUSTRIES for t in split(LEX[i]["ztopic"])], n + 1)
        vs = [f"{r.choice(ZN)}，分机{r.randint(100, 999)}" for _ in range(n)]
        f = pick(r, "{k}：{v}", "{k}请找{v}。")
        qs, ans = ["{k}找谁？", "{k}联系谁？", "{k}的联系人是谁？"], "{k}请找{v}。"
    else:
        ks = r.sample(ZTHING, n + 1)
        vs = [f"{r.randint(2, 999)}元" for _ in range(n)]
        f = pick(r, "{k}的价格是{v}。", "{k}：{v}", "{k}卖{v}。")
        qs, ans = ["{k}多少钱？", "{k}的价格是多少？", "{k}卖多少？"], "{k}的价格是{v}。"
    n = min(n, len(vs), len(ks) - 1)
    pairs, extra = list(zip(ks, vs))[:n], ks[n]
    if extra in codes:
        force_missing = False  # a world's own fact, no reason to say "I don't know"
    fill = lambda s, k, v="": (
        s.replace("{K}", k).replace("{V}", cap(v) if v else "").replace("{k}", k).replace("{v}", v)
    )
    text = pick(r, "\n", "\n", " ").join(cap(fill(f, k, v)) for k, v in pairs)
    head = (
        pick(r, "资料：\n", "请阅读：\n", "")
        if zh
        else pick(
            r,
            "Text:\n",
            "Read this:\n",
            "Notes: ",
            "",
            "Here is a list.\n",
            "Please refer to this report:\n",
            "Someone wrote this:\n",
            "The right values are:\n",
        )
    )
    m, asked = [], r.sample(pairs, min(n, r.randint(1, 3)))
    for i, (k, v) in enumerate(asked):
        last = i == len(asked) - 1
        missing = force_missing if (last or extra in codes) and force_missing is not None else r.random() < 0.2
        if missing:
            k = extra
        q = ask(r, ASKED[kind], k) if kind in ASKED and r.random() < 0.75 else cap(fill(r.choice(qs), k))
        a, key = (idk(r, k, zh), "我不知道" if zh else "I don't know") if missing else (cap(fill(ans, k, v)), v)
        m += [
            U(
                (
                    head
                    + text
                    + pick(r, "\n", "\n\n")
                    + (pick(r, "问题：", "") if zh else pick(r, "Question: ", "", ""))
                    + q
                )
                if i == 0
                else q
            ),
            A(a),
        ]
    return m, key


def unknown(r):
    """Bare codes and terms without any text: the base model must say that it does not know."""
    if r.random() < 0.25:
        return lookup(r, force_missing=True)
    kind = pick(
        r,
        "meaning",
        "meaning",
        "action",
        "action",
        "term",
        "limit",
        "contact",
        "zh_meaning",
        "zh_meaning",
        "zh_contact",
    )
    zh, L = kind.startswith("zh"), LEX[r.choice(INDUSTRIES)]
    if kind == "zh_contact":
        x = r.choice(split(L["ztopic"]))
    elif kind in ("limit", "contact"):
        x = r.choice(split(L["limit" if kind == "limit" else "topic"])) + pick(
            r,
            "",
            " "
            + r.choice(
                [
                    "today",
                    "on Sundays",
                    "in the main office",
                    "on weekdays",
                    "at night",
                    "in winter",
                    "on site",
                    "on weekends",
                ]
            ),
        )
    elif kind == "term":
        x = pick(
            r,
            r.choice(TERMS.split("\n")).split(" ")[0],
            "".join(r.choice("ABCDEFGHIKLMNOPRSTUX") for _ in range(r.choice([2, 3]))),
        )
    else:
        x = pick(r, code(r), code(r), code(r), fake(r))
    other = (
        ["{}是什么？", "出现{}怎么办？", "你知道{}吗？"]
        if zh
        else [
            "What is {}?",
            "Explain {}.",
            "{}?",
            "Do you know {}?",
            "Help, {} is here!",
            "Tell me about {}.",
            "We got {} today, what next?",
        ]
    )
    q = ask(r, kind, x) if r.random() < 0.8 else r.choice(other).format(x)
    m = [U(cap(q)), A(idk(r, x, zh))]
    if r.random() < 0.15:
        m = smalltalk(r)[0][:2] + m
    return m, "我不知道" if zh else "I don't know"
