"""General words, English and Chinese, and random pieces made of them: names, codes, phrases, turns. Knows no skill."""

from lexicon import INDUSTRIES, LEX, TERMS, split

W = lambda s: s.split()
NAMES = W(
    "Anna Ben Carla David Elena Felix Greta Hugo Iris Jonas Kira Leo Maria Nils Olga Paul Rosa Samir Tina "
    "Uwe Vera Wanda Xaver Yara Zoe Amir Bianca Cem Dora Emil Fatima George Hana Ivan Julia Karim Lena "
    "Marco Nadia Oscar Petra Quinn Rita Stefan Tara Umar Viktor Wen Aiko Boris Chloe Diego Esra Finn Gita "
    "Henrik Ines Jamal Klara Luis Mina Noah Otto Priya Ravi Sofia Tomas Ursula Victor Willa"
)
CITIES = W(
    "Berlin Lima Oslo Paris Rome Tokyo Cairo Delhi Madrid Vienna Quito Dublin Hanoi Accra Athens Boston "
    "Chicago Denver Geneva Havana Istanbul Jakarta Kyoto Lagos Milan Nairobi Osaka Prague Riga Seoul "
    "Tunis Utrecht Venice Warsaw Zurich Perth Porto Lyon Bergen Krakow"
)
JOBS = W(
    "nurse lawyer banker baker driver teacher farmer painter pilot singer welder clerk doctor judge cook "
    "engineer plumber writer tailor dentist"
)
THINGS = W(
    "lamp book chair table key box bag bottle clock phone letter map camera hammer rope coat hat ring "
    "mirror window door garden bridge boat train car bike engine pump filter pipe cable screen printer "
    "ticket coin card drum guitar flute piano kite ball doll cup plate knife spoon basket candle pillow "
    "blanket carpet ladder wheel shovel bucket tent stone leaf flower tree river"
)
FOODS = W(
    "rice bread soup cheese apples grapes pasta salad fish noodles tea coffee cake beans carrots honey "
    "plums yogurt pizza dumplings olives melons"
)
ANIMALS = W("dog cat horse bird fox wolf bear mouse rabbit owl duck sheep goat cow frog turtle tiger lion")
COLORS = W("red blue green yellow black white brown grey pink purple orange silver golden")
ADJS = W(
    "small big old new quiet bright heavy light clean broken warm cold strange simple famous cheap rare "
    "round tall soft sharp empty full lost"
)
PLACES = W(
    "market park station harbor museum library school office factory hospital court bank kitchen forest "
    "beach village hotel theater airport square tower castle island valley"
)
DAYS = W("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = W("January February March April May June July August September October November December")
ZN = [a + b for a in "王李张刘陈赵周吴孙郑钱何马林高" for b in W("芳 强 敏 洋 静 磊 婷 刚 丽 浩 伟 雪 明 红 杰 娜")]
ZCITY = W("北京 上海 广州 深圳 杭州 南京 成都 武汉 西安 重庆 天津 苏州 长沙 青岛 大连 厦门 昆明 柏林 巴黎 东京")
ZJOB = W("护士 律师 老师 司机 厨师 医生 工程师 会计 农民 画家 歌手 法官 木匠 店员")
ZTHING = W(
    "台灯 书 椅子 桌子 钥匙 箱子 瓶子 钟 手机 信 地图 相机 锤子 绳子 外套 帽子 镜子 "
    "船 自行车 水泵 电缆 屏幕 票 硬币 鼓 吉他 风筝 杯子 盘子 篮子 蜡烛 毯子 梯子 花 石头"
)
ZFOOD = W("米饭 面包 汤 奶酪 苹果 葡萄 面条 沙拉 鱼 茶 咖啡 蛋糕 豆腐 蜂蜜 饺子 西瓜")
ZPLACE = W("市场 公园 车站 港口 博物馆 图书馆 学校 办公室 工厂 医院 法院 银行 厨房 森林 海边 村子 酒店 剧院 机场")
ZADJ = W("小 大 旧 新 安静 明亮 沉重 轻巧 干净 破旧 温暖 奇怪 简单 有名 便宜 稀有")
ABSTRACT = W("speed price weight height width color owner status pressure voltage length volume rating size")
TOPICS = {
    t: W(w)
    for t, w in dict(
        billing="invoice payment charge receipt fee refund",
        delivery="parcel courier shipment address package driver",
        technical="error crash screen update login bug",
        sports="goal match team coach race player",
        weather="rain storm snow sun wind cloud",
        food="soup bread cheese dinner cook lunch",
        travel="flight hotel passport trip ticket luggage",
        music="guitar song concert drum melody singer",
        health="doctor fever medicine pain nurse pulse",
        law="court judge lawyer contract appeal witness",
        money="bank loan interest account credit tax",
        machines="spindle motor conveyor gear press robot",
        school="teacher exam homework class pupil lesson",
        animals="dog horse cat bird rabbit sheep",
        garden="flower tree leaf shovel seed grass",
        family="mother brother sister uncle baby aunt",
    ).items()
}
ZTOPICS = {
    t: W(w)
    for t, w in dict(
        账单="发票 付款 收费 收据 退款",
        物流="包裹 快递 地址 运单 司机",
        技术="报错 死机 登录 更新 屏幕",
        体育="比赛 球队 教练 进球 跑步",
        天气="下雨 暴风 下雪 太阳 刮风",
        美食="汤 面包 奶酪 晚饭 饺子",
        旅行="航班 酒店 护照 车票 行李",
        医疗="医生 发烧 药 疼痛 护士",
        法律="法院 法官 律师 合同 上诉",
        机器="主轴 电机 传送带 齿轮 机器人",
    ).items()
}
GOOD, BAD = (
    W("great wonderful excellent friendly fast lovely perfect"),
    W("terrible awful slow rude broken dirty useless"),
)
SYSTEMS = [
    "You are a helpful assistant.",
    "You are a friendly assistant.",
    "Answer briefly.",
    "You answer questions for a company.",
    "你是一个有用的助手。",
    "请简短回答。",
]


def U(c):
    """A user turn."""
    return dict(role="user", content=c)


def A(c):
    """An assistant turn."""
    return dict(role="assistant", content=c)


def pick(r, *xs):
    return r.choice(xs)


def fake(r):  # a made-up word, so that copying does not depend on the lexicon
    return "".join(
        r.choice(
            W("ba ko ri ven lo mar tis dun fel gra ho ju kel li mo nar pra qui ro sel tor ul vix wen za chi bru sto")
        )
        for _ in range(r.choice([2, 2, 3]))
    )


def name(r):
    return r.choice(NAMES) if r.random() < 0.75 else fake(r).capitalize()


def code(r):
    return pick(
        r,
        f"{r.choice('ABCDEFGHKLMNPQRSTXZ')}-{r.randint(10, 99)}",
        f"{r.choice('ABCDEFGHKLMNPQRSTWXZ')}-{r.randint(100, 999)}",
        f"{r.choice('ABCEFKMPRST')}{r.choice('ABCDEFKLNXZ')}-{r.randint(1, 99)}",
        f"{r.choice('ABCDEFGHKLMNPQRSTXZ')}-{r.randint(10, 99)}",
    )


def phrase(r):  # meaning phrases: words of the industries, randomly recombined, plus general ones
    L = LEX[r.choice(INDUSTRIES)]
    return pick(
        r,
        f"{r.choice(split(L['prob']))} the {r.choice(split(LEX[r.choice(INDUSTRIES)]['obj']))}",
        f"{r.choice(ADJS)} {r.choice(THINGS)}",
        f"{r.choice(ABSTRACT)} of the {r.choice(THINGS)}",
        r.choice(TERMS.split("\n")).split(" ", 1)[1].split("|")[r.randrange(4)],
    )


def act(r):
    L = LEX[r.choice(INDUSTRIES)]
    return f"{r.choice(split(L['act']))} the {pick(r, r.choice(split(L['obj'])), r.choice(THINGS))}" + pick(
        r, "", f" and {r.choice(['call', 'inform', 'wait for'])} {name(r)}"
    )


def zphrase(r):
    L = LEX[r.choice(INDUSTRIES)]
    return pick(
        r,
        r.choice(split(LEX[r.choice(INDUSTRIES)]["zobj"])) + r.choice(split(L["zprob"])),
        r.choice(ZADJ) + "的" + r.choice(ZTHING),
    )


def cap(s):
    return s[0].upper() + s[1:]


def idk(r, x, zh=False):
    return f"我不知道{x}，手头的资料里没有。" if zh else f"I don't know {x}. It is not in the text I have."
