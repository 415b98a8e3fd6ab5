"""What the demo knows about abdominal organs: names, codes and decisive facts, in words.

The organs are those of FLARE22, in its numbering. Facts follow the rules of
`training.data.structures`: each is true of one organ of the list only, in four training wordings
and one held-out wording.
"""

from dataclasses import dataclass, field

from training.data.structures import Fact, Structure


@dataclass(frozen=True)
class SnomedCode:
    """A body structure in SNOMED CT, as DICOM segmentations name it."""

    structure: str
    laterality: str | None = None
    """Code of the side where the organ is paired."""


RIGHT, LEFT = "24028007", "7771000"


@dataclass(frozen=True)
class Organ(Structure):
    """One organ that can be asked for."""

    snomed: SnomedCode = field(kw_only=True)


def _f(*wordings: str) -> Fact:
    return Fact(wordings[:-1], wordings[-1])


_ENTRIES: tuple[
    tuple[str, SnomedCode, tuple[str, ...], tuple[Fact, ...], tuple[Fact, ...]], ...
] = (
    (
        "liver",
        SnomedCode("10200004"),
        ("the liver", "the hepatic parenchyma"),
        (
            _f(
                "makes bile",
                "produces the bile",
                "secretes bile",
                "is the source of bile",
                "is where bile is made",
            ),
            _f(
                "detoxifies the blood that comes from the gut",
                "clears toxins and drugs from the blood",
                "frees the gut's blood of toxins",
                "takes poisons out of the blood",
                "removes toxins from the blood of the gut",
            ),
            _f(
                "is inflamed in hepatitis",
                "becomes inflamed when somebody has hepatitis",
                "gets inflamed by a hepatitis virus",
                "is ill in hepatitis B",
                "suffers inflammation in a case of hepatitis",
            ),
            _f(
                "is scarred in cirrhosis",
                "turns into scar tissue in cirrhosis",
                "becomes scarred tissue through cirrhosis",
                "ends up hard and scarred in cirrhosis",
                "has scars when there is cirrhosis",
            ),
            _f(
                "stores glycogen and makes most plasma proteins",
                "makes albumin and keeps glycogen in store",
                "is the store of glycogen and the source of albumin",
                "produces albumin and most proteins of the plasma",
                "holds the glycogen store and makes albumin",
            ),
        ),
        (
            _f(
                "is the largest solid organ of the abdomen, under the right diaphragm",
                "fills the right upper abdomen below the diaphragm",
                "is the biggest solid organ in the belly",
                "takes the place under the right half of the diaphragm",
                "lies below the right diaphragm and is the largest solid organ",
            ),
            _f(
                "has the gallbladder at its lower surface",
                "carries the gallbladder on its underside",
                "has the gallbladder hanging below it",
                "holds the gallbladder in a bed on its underside",
                "bears the gallbladder at its underside",
            ),
        ),
    ),
    (
        "right kidney",
        SnomedCode("64033007", RIGHT),
        ("the right kidney", "the kidney on the right side"),
        (
            _f(
                "makes urine on the right side of the body",
                "filters the blood into urine on the right",
                "is the source of urine on the right",
                "cleans the blood on the right side by making urine",
                "filters urine from the blood on the right side",
            ),
            _f(
                "drains into the right ureter",
                "sends its urine into the right ureter",
                "empties through the right ureter",
                "has the right ureter as its drain",
                "is drained by the right ureter",
            ),
            _f(
                "is lost in a right nephrectomy",
                "is taken out in a right-sided nephrectomy",
                "goes away with a right nephrectomy",
                "is missing after a right-sided nephrectomy",
                "is removed by nephrectomy on the right",
            ),
        ),
        (
            _f(
                "lies behind the liver beside the spine",
                "sits beside the spine, below and behind the liver",
                "is next to the spine, underneath the liver",
                "has the liver in front of it and the spine beside it",
                "is found behind the liver, next to the spine",
            ),
            _f(
                "lies below the right adrenal gland",
                "carries the right adrenal gland on its upper pole",
                "has the right adrenal gland on top of it",
                "bears the right suprarenal gland on its top",
                "has the right adrenal gland above its upper pole",
            ),
        ),
    ),
    (
        "spleen",
        SnomedCode("78961009"),
        ("the spleen", "the splenic parenchyma"),
        (
            _f(
                "breaks down old red blood cells",
                "removes aged red blood cells from the blood",
                "destroys worn-out red blood cells",
                "filters old red cells out of the blood",
                "is where old red blood cells are broken down",
            ),
            _f(
                "is the largest lymphatic organ",
                "is the biggest organ of the lymphatic system",
                "is the main lymphatic organ",
                "is larger than every other lymphatic organ",
                "counts as the largest of the lymphatic organs",
            ),
            _f(
                "is enlarged in mononucleosis",
                "swells when a patient has mononucleosis",
                "gets large when one has mononucleosis",
                "becomes large during mononucleosis",
                "is swollen in mononucleosis",
            ),
            _f(
                "is removed in a splenectomy",
                "is taken out by splenectomy",
                "goes away with a splenectomy",
                "is cut out by splenectomy",
                "is missing after splenectomy",
            ),
        ),
        (
            _f(
                "lies at the far left under the diaphragm, beside the stomach",
                "sits between the stomach and the left ribs",
                "lies under the left ribs, next to the stomach",
                "fills the far left corner below the diaphragm",
                "is found between the left ribs and the stomach",
            ),
            _f(
                "touches the tail of the pancreas at its hilum",
                "has the pancreatic tail at its hilum",
                "is reached by the tail of the pancreas",
                "has its hilum at the end of the pancreatic tail",
                "meets the tail of the pancreas with its hilum",
            ),
        ),
    ),
    (
        "pancreas",
        SnomedCode("15776009"),
        ("the pancreas", "the pancreatic gland"),
        (
            _f(
                "makes insulin",
                "produces insulin and glucagon",
                "secretes insulin",
                "gives insulin to the blood",
                "is the source of insulin",
            ),
            _f(
                "controls the blood sugar with its islets",
                "regulates blood sugar by its islets of Langerhans",
                "keeps the blood sugar in check with islet cells",
                "contains the islets of Langerhans",
                "has the islets that control blood sugar",
            ),
            _f(
                "makes lipase and amylase for digestion",
                "gives digestive enzymes such as lipase and amylase",
                "secretes lipase and amylase into the gut",
                "is the source of digestive lipase",
                "supplies lipase and amylase to digest food",
            ),
            _f(
                "fails in type 1 diabetes",
                "is damaged in patients with type 1 diabetes",
                "no longer works in type 1 diabetes",
                "loses its islets in type 1 diabetes",
                "has failed in somebody with type 1 diabetes",
            ),
        ),
        (
            _f(
                "lies across the spine behind the stomach, its head in the duodenum's loop",
                "stretches from the duodenum's loop to the spleen, behind the stomach",
                "has its head in the loop of the duodenum",
                "crosses the spine behind the stomach",
                "runs behind the stomach from the loop of the duodenum to the spleen",
            ),
            _f(
                "has a head, a neck, a body and a tail",
                "is divided into head, neck, body and tail",
                "is made of a head, a neck, a body and a tail",
                "has both a head and a tail",
                "consists of head, neck, body and tail",
            ),
        ),
    ),
    (
        "aorta",
        SnomedCode("15825003"),
        ("the aorta", "the abdominal aorta"),
        (
            _f(
                "carries blood from the heart to the abdomen and legs",
                "brings oxygen-rich blood from the heart to the lower body",
                "takes blood from the heart down to the legs",
                "feeds the lower body with blood from the heart",
                "brings the heart's blood to abdomen and legs",
            ),
            _f(
                "is the largest artery of the body",
                "is the body's main artery",
                "is bigger than any other artery",
                "is the main artery",
                "counts as the body's largest artery",
            ),
            _f(
                "can tear when its aneurysm ruptures",
                "is checked for an abdominal aneurysm",
                "may burst from an aneurysm",
                "bleeds when an abdominal aneurysm bursts",
                "may have an aneurysm that ruptures",
            ),
        ),
        (
            _f(
                "runs down in front of the spine, a little to the left",
                "lies in front of the vertebrae, left of the vena cava",
                "goes down before the spine, slightly left",
                "descends in front of the vertebrae at the left of the vena cava",
                "descends on the left in front of the spine",
            ),
            _f(
                "divides into the two common iliac arteries",
                "ends by splitting into the iliac arteries",
                "branches into the common iliac arteries",
                "forks into both iliac arteries",
                "splits at its end into both iliac arteries",
            ),
        ),
    ),
    (
        "inferior vena cava",
        SnomedCode("64131007"),
        ("the inferior vena cava", "the lower caval vein", "the IVC"),
        (
            _f(
                "returns blood from the lower body to the heart",
                "brings blood from legs and abdomen back to the heart",
                "takes the blood of the legs up to the heart",
                "leads the blood of the lower body back to the heart",
                "carries the lower body's blood back to the heart",
            ),
            _f(
                "is the largest vein of the abdomen",
                "is the main vein in the abdomen",
                "is the biggest abdominal vein",
                "is larger than every other vein of the abdomen",
                "counts as the abdomen's largest vein",
            ),
            _f(
                "gets a filter against clots from leg veins",
                "holds the filter that stops clots from the legs",
                "is where a filter catches clots",
                "has a filter put in when leg veins clot",
                "may carry a filter for clots from the legs",
            ),
        ),
        (
            _f(
                "runs up in front of the spine, right of the aorta",
                "lies to the right of the aorta in front of the vertebrae",
                "goes up beside the aorta, on its right",
                "ascends before the spine, next to the aorta",
                "ascends at the right of the aorta",
            ),
            _f(
                "takes up the hepatic and the renal veins",
                "receives the renal veins and the hepatic veins",
                "has the renal veins opening into it",
                "collects the hepatic veins",
                "is joined by the hepatic veins and the renal veins",
            ),
        ),
    ),
    (
        "right adrenal gland",
        SnomedCode("23451007", RIGHT),
        ("the right adrenal gland", "the right suprarenal gland"),
        (
            _f(
                "makes cortisol and adrenaline on the right side",
                "is the right-sided source of cortisol and adrenaline",
                "secretes cortisol on the right",
                "gives off adrenaline on the right side",
                "produces adrenaline and cortisol on the right",
            ),
            _f(
                "holds the tumour of a right-sided pheochromocytoma",
                "is enlarged by a pheochromocytoma on the right",
                "has a tumour in right-sided pheochromocytoma",
                "contains the pheochromocytoma of the right side",
                "has a right pheochromocytoma in it",
            ),
        ),
        (
            _f(
                "lies between the liver, the vena cava and the right diaphragm",
                "sits just behind the inferior vena cava, next to the liver",
                "lies behind the vena cava beside the liver",
                "is squeezed between the vena cava and the liver",
                "is found next to the liver and behind the vena cava",
            ),
            _f(
                "sits on top of the right kidney",
                "caps the right kidney",
                "is the small gland above the right kidney",
                "forms a cap over the right kidney's upper pole",
                "is the cap on the right kidney",
            ),
        ),
    ),
    (
        "left adrenal gland",
        SnomedCode("23451007", LEFT),
        ("the left adrenal gland", "the left suprarenal gland"),
        (
            _f(
                "makes cortisol and adrenaline on the left side",
                "is the left-sided source of cortisol and adrenaline",
                "secretes cortisol on the left",
                "gives off adrenaline on the left side",
                "produces adrenaline and cortisol on the left",
            ),
            _f(
                "holds the tumour of a left-sided pheochromocytoma",
                "is enlarged by a pheochromocytoma on the left",
                "has a tumour in left-sided pheochromocytoma",
                "contains the pheochromocytoma of the left side",
                "has a left pheochromocytoma in it",
            ),
        ),
        (
            _f(
                "lies beside the aorta behind the stomach, shaped like a Y",
                "sits left of the aorta, in front of the left kidney's upper pole",
                "has the shape of a Y next to the aorta",
                "is the Y-shaped gland behind the stomach",
                "is the Y beside the aorta, behind the stomach",
            ),
            _f(
                "sits on top of the left kidney",
                "caps the left kidney",
                "is the small gland above the left kidney",
                "forms a cap over the left kidney's upper pole",
                "is the cap on the left kidney",
            ),
        ),
    ),
    (
        "gallbladder",
        SnomedCode("28231008"),
        ("the gallbladder", "the gall bladder"),
        (
            _f(
                "stores bile",
                "keeps the bile until a meal",
                "holds bile in reserve",
                "is where bile is stored",
                "is the store of bile",
            ),
            _f(
                "can fill with gallstones",
                "is where gallstones form",
                "often contains gallstones",
                "forms gallstones",
                "may be full of gallstones",
            ),
            _f(
                "is removed in a cholecystectomy",
                "is taken out by cholecystectomy",
                "goes away with a cholecystectomy",
                "is cut out by cholecystectomy",
                "is missing after cholecystectomy",
            ),
            _f(
                "contracts after a fatty meal",
                "empties when fat reaches the gut",
                "squeezes after a meal full of fat",
                "gives off its bile after a fatty meal",
                "empties itself after a fatty meal",
            ),
        ),
        (
            _f(
                "is a sac under the liver",
                "hangs as a small sac below the liver",
                "is the small sac beneath the liver",
                "is a pear-shaped sac below the liver",
                "is the small sac on the underside of the liver",
            ),
            _f(
                "empties through the cystic duct",
                "is drained by the cystic duct",
                "has the cystic duct as its outlet",
                "opens into the cystic duct",
                "drains through the cystic duct",
            ),
        ),
    ),
    (
        "esophagus",
        SnomedCode("32849002"),
        ("the esophagus", "the gullet"),
        (
            _f(
                "carries food from the throat to the stomach",
                "brings swallowed food down to the stomach",
                "is the tube from the throat to the stomach",
                "leads what we swallow into the stomach",
                "brings food from the throat into the stomach",
            ),
            _f(
                "burns in acid reflux",
                "is injured when acid flows back in reflux",
                "hurts when stomach acid comes up",
                "suffers from acid reflux",
                "is burnt by acid in reflux",
            ),
            _f(
                "can have varices that bleed",
                "bleeds from varices in portal hypertension",
                "has bleeding varices in portal hypertension",
                "contains varices that can bleed",
                "may bleed from its varices",
            ),
        ),
        (
            _f(
                "passes the diaphragm just above the stomach",
                "enters the abdomen through the hiatus of the diaphragm",
                "goes through the diaphragm on its way to the stomach",
                "crosses the diaphragm at its hiatus",
                "comes through the hiatus of the diaphragm above the stomach",
            ),
            _f(
                "ends at the cardia",
                "opens into the cardia",
                "leads into the cardia",
                "meets the stomach at the cardia",
                "has its end at the cardia",
            ),
        ),
    ),
    (
        "stomach",
        SnomedCode("69695003"),
        ("the stomach", "the gastric lumen and wall"),
        (
            _f(
                "mixes food with acid",
                "churns the food in hydrochloric acid",
                "digests food in acid",
                "is where food meets acid",
                "is where acid is mixed with food",
            ),
            _f(
                "makes pepsin",
                "starts protein digestion with pepsin",
                "secretes pepsin",
                "produces pepsin to digest protein",
                "is the source of pepsin",
            ),
            _f(
                "is reduced to a sleeve in bariatric surgery",
                "is made small by bariatric surgery",
                "is turned into a sleeve by bariatric surgery",
                "becomes a sleeve when obesity is operated on",
                "is cut to a sleeve by bariatric surgery",
            ),
            _f(
                "has a fundus, a body and an antrum",
                "is divided into fundus, body and antrum",
                "is made of a fundus, a body and an antrum",
                "has both a fundus and an antrum",
                "consists of fundus, body and antrum",
            ),
        ),
        (
            _f(
                "lies in the left upper abdomen, often with an air bubble in front",
                "holds an air bubble in the left upper abdomen",
                "often has an air bubble in it",
                "is in the left upper abdomen and contains air",
                "is found at the left upper abdomen, with a bubble of air",
            ),
            _f(
                "ends at the pylorus",
                "opens through the pylorus",
                "leads to the pylorus",
                "has the pylorus as its exit",
                "has its outlet at the pylorus",
            ),
        ),
    ),
    (
        "duodenum",
        SnomedCode("38848004"),
        ("the duodenum", "the first part of the small intestine"),
        (
            _f(
                "receives bile and pancreatic juice",
                "takes up the bile and the juice of the pancreas",
                "has bile and pancreatic juice flowing into it",
                "gets the bile and the pancreatic juice",
                "is where bile and pancreatic juice flow in",
            ),
            _f(
                "is the first part of the small bowel",
                "begins the small bowel",
                "is where the small bowel starts",
                "comes first in the small intestine",
                "is the small bowel's beginning",
            ),
            _f(
                "has the ampulla of Vater in its wall",
                "bears the ampulla of Vater",
                "contains the ampulla of Vater",
                "is where the ampulla of Vater opens",
                "carries the ampulla of Vater in its wall",
            ),
        ),
        (
            _f(
                "winds in a C around the head of the pancreas",
                "encloses the head of the pancreas like a C",
                "bends like a C around the pancreas head",
                "holds the pancreatic head in its C-shaped loop",
                "makes a C round the pancreatic head",
            ),
            _f(
                "follows the pylorus",
                "begins just after the pylorus",
                "is the bowel right behind the pylorus",
                "starts where the pylorus ends",
                "comes right after the pylorus",
            ),
        ),
    ),
    (
        "left kidney",
        SnomedCode("64033007", LEFT),
        ("the left kidney", "the kidney on the left side"),
        (
            _f(
                "makes urine on the left side of the body",
                "filters the blood into urine on the left",
                "is the source of urine on the left",
                "cleans the blood on the left side by making urine",
                "filters urine from the blood on the left side",
            ),
            _f(
                "drains into the left ureter",
                "sends its urine into the left ureter",
                "empties through the left ureter",
                "has the left ureter as its drain",
                "is drained by the left ureter",
            ),
            _f(
                "is lost in a left nephrectomy",
                "is taken out in a left-sided nephrectomy",
                "goes away with a left nephrectomy",
                "is missing after a left-sided nephrectomy",
                "is removed by nephrectomy on the left",
            ),
        ),
        (
            _f(
                "lies below the spleen beside the spine",
                "sits beside the spine, below and behind the spleen",
                "is next to the spine, underneath the spleen",
                "has the spleen above it and the spine beside it",
                "is found below the spleen, next to the spine",
            ),
            _f(
                "lies below the left adrenal gland",
                "carries the left adrenal gland on its upper pole",
                "has the left adrenal gland on top of it",
                "bears the left suprarenal gland on its top",
                "has the left adrenal gland above its upper pole",
            ),
        ),
    ),
)

ORGANS: tuple[Organ, ...] = tuple(
    Organ(number, name, synonyms, attributes, locations, snomed=snomed)
    for number, (name, snomed, synonyms, attributes, locations) in enumerate(_ENTRIES, start=1)
)
"""The thirteen organs in the order of their labels."""
