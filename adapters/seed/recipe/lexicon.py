"""Words of the four industries: the base model's generator and the worlds both draw from them.

Per industry: obj objects, prob problems, act verbs on an object, limit measured things with their units, topic matters
that a person is responsible for; z... the same in Chinese. TERMS: one abbreviation, four meanings.
"""

INDUSTRIES = ["finance", "healthcare", "legal", "manufacturing"]
LEX = {
    "finance": dict(
        obj="savings account,credit line,wire transfer,mortgage file,payment card,loan contract,"
        "branch vault,cash drawer,tax report,customer ledger,deposit slip,trading desk,pension fund,"
        "invoice batch,interest table,overdraft limit",
        prob="late fee on,wrong balance of,missing signature for,suspected fraud on,double booking of,"
        "expired approval for,currency mismatch in,blocked access to,rounding error in,"
        "overdue review of",
        act="freeze,reconcile,audit,reverse,escalate,refund,recalculate,countersign",
        limit="daily withdrawal,card payment,overdraft,wire fee,cash deposit,loan term,refund window,password age",
        unit="dollars,euros,days,percent",
        topic="chargebacks,mortgage rates,stolen cards,tax forms,account closing,pension plans,"
        "exchange rates,audit requests",
        zobj="储蓄账户,信用卡,贷款合同,汇款单,发票,保险柜",
        zprob="逾期费,余额错误,签名缺失,疑似欺诈,重复记账",
        ztopic="挂失,开户,汇率,退税,理财,对账",
    ),
    "healthcare": dict(
        obj="infusion pump,patient chart,blood sample,oxygen mask,heart monitor,vaccine fridge,"
        "surgery room,bed rail,drug cabinet,test result,wound dressing,nurse call,referral letter,"
        "insulin pen,x-ray image,isolation ward",
        prob="low pressure in,allergy note on,contamination of,missing label on,delayed check of,"
        "high fever alarm from,wrong dose in,battery failure of,infection risk near,"
        "unread message about",
        act="disinfect,replace,isolate,relabel,inspect,recheck,refill,document",
        limit="visiting time,room temperature,waiting time,paracetamol dose,pulse alarm,fasting time,"
        "oxygen flow,sample storage",
        unit="minutes,hours,milligrams,degrees",
        topic="night visits,blood donation,vaccination,lost records,diet plans,wheelchairs,lab results,"
        "patient transport",
        zobj="输液泵,病历,血样,氧气面罩,药柜,病床",
        zprob="压力过低,过敏提示,标签缺失,剂量错误,电池故障",
        ztopic="探视,体检,疫苗,取药,住院,化验",
    ),
    "legal": dict(
        obj="court filing,witness statement,lease agreement,patent claim,client mandate,evidence box,"
        "appeal brief,notary seal,power of attorney,settlement offer,case register,will and testament,"
        "merger contract,privacy notice,court summons,trademark form",
        prob="missed deadline for,conflict of interest in,missing page in,forged copy of,"
        "disputed clause in,wrong venue for,sealed status of,invalid date on,objection against,"
        "pending translation of",
        act="withdraw,amend,notarize,archive,contest,redact,resubmit,serve",
        limit="appeal period,filing fee,page count,retention period,claim value,hearing length,"
        "notice period,copy charge",
        unit="days,pages,dollars,months",
        topic="divorce cases,tenant disputes,patents,notary dates,court fees,data privacy,labour law,inheritance",
        zobj="起诉书,证人证言,租赁合同,专利申请,遗嘱,传票",
        zprob="超过期限,利益冲突,缺页,条款争议,日期无效",
        ztopic="离婚,继承,专利,劳动争议,公证,上诉",
    ),
    "manufacturing": dict(
        obj="spindle,conveyor belt,hydraulic press,welding robot,coolant pump,lathe chuck,paint booth,"
        "torque wrench,safety gate,gear box,mould cavity,air compressor,drill head,forklift,"
        "sensor rail,packing line",
        prob="overheating of,oil leak at,vibration of,jam in,worn bearing in,loose bolt on,power loss at,"
        "misalignment of,crack in,low coolant at",
        act="stop,lubricate,tighten,realign,clean,lock out,restart,recalibrate",
        limit="spindle speed,belt load,oil temperature,press force,noise level,tool life,shift length,air pressure",
        unit="bar,hours,degrees,kilograms",
        topic="spare parts,shift plans,tool loss,accidents,machine cleaning,crane booking,quality audits,waste oil",
        zobj="主轴,传送带,液压机,焊接机器人,冷却泵,齿轮箱",
        zprob="过热,漏油,振动,卡住,轴承磨损",
        ztopic="备件,排班,事故,吊车,质检,废油",
    ),
}
TERMS = """PO payment order|oral intake|protection order|production order
CC credit card|chief complaint|civil code|control chart
PT prime term|physical therapy|pre-trial|pressure test
RR reserve ratio|respiratory rate|right of return|rework rate
CBC cross-border charge|complete blood count|case by case review|conveyor belt check
AR accounts receivable|adverse reaction|appeal record|assembly robot
BP basis point|blood pressure|burden of proof|bearing plate
MI mortgage insurance|heart attack|motion to inspect|machine interlock
SOP statement of payments|schedule of patients|statement of pleadings|standard operating procedure
ED early debit|emergency department|expert declaration|edge deburring
TPR third party refund|temperature and pulse reading|termination of rights|tool pressure reading
CAP credit approval process|common acute pneumonia|court appointed person|corrective action plan
LTC loan to cost|long term care|letter to client|low torque control
ROI return on investment|release of information|record of interview|range of inspection
NDA net deposit amount|no drug allergies|non-disclosure agreement|nominal drill angle
IP interest period|inpatient|intellectual property|ingress protection
FX foreign exchange|fracture|final exhibit|fixture
OR overnight rate|operating room|order of release|output rate
DC direct credit|discharge|district court|direct current
PR prime rate|pulse rate|public record|press ram
HR hurdle rate|heart rate|hearing room|hydraulic ram
SL stop loss|sick leave|strict liability|side loader
MRI monthly rate index|magnetic imaging|motion review item|material release inspection
DL debit limit|daily lab|default letter|dual lift"""


def split(s: str) -> list[str]:
    """The parts of a comma-separated entry."""
    return s.split(",")


def terms() -> list[tuple[str, list[str]]]:
    """[(abbreviation, its four meanings in the order of INDUSTRIES)]."""
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].split("|")) for line in TERMS.split("\n")]
