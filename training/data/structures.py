"""What the demo knows about brain structures: names and decisive facts, in words.

Each fact is a predicate in the third person singular ("consolidates memories"), so that it fits
after "Which structure ...". It is true of exactly one structure of the list in the sense an
anatomy student would give it. Each fact has two training wordings and one held-out wording that
shares the decisive words. How questions are made of them is `training.data.questions`; where the
structures are in an image is left to the atlas.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """One decisive statement about a structure, in several wordings."""

    train: tuple[str, ...]
    """Wordings used for training; the first is also the one explanations quote."""
    held_out: str
    """Wording used for tests only."""


@dataclass(frozen=True)
class Structure:
    """One brain structure that can be asked for."""

    id: int
    """Label in the demo's label maps, from 1; 0 is background."""
    name: str
    """Canonical name, lower case, without article."""
    synonyms: tuple[str, ...]
    """Names with article for direct questions; the first is "the " + name."""
    attributes: tuple[Fact, ...]
    """What it does or is made of; the first is the one explanations quote by default."""
    locations: tuple[Fact, ...]
    """Where it lies; the first is the one explanations quote by default."""
    pronoun: str = "It"
    """Subject of the explanation's sentences; takes a singular verb."""


def _f(first: str, second: str, held_out: str) -> Fact:
    return Fact((first, second), held_out)


_ENTRIES: tuple[tuple[str, tuple[str, ...], tuple[Fact, ...], tuple[Fact, ...]], ...] = (
    (
        "cerebellum",
        ("the cerebellum", "the little brain", "the cerebellar hemispheres"),
        (
            _f("controls balance", "keeps the body in balance", "is in control of our balance"),
            _f(
                "coordinates movements",
                "makes movements smooth and coordinated",
                "is needed for smooth coordination of movements",
            ),
            _f(
                "causes ataxia when damaged",
                "leads to ataxia if it is injured",
                "is damaged in a person with ataxia",
            ),
            _f(
                "contains Purkinje cells",
                "sends its output through Purkinje cells",
                "is home of the Purkinje cells",
            ),
            _f(
                "holds more than half of all neurons of the brain",
                "packs most of the brain's neurons into its tiny granule cells",
                "has most of the neurons, more than half of all in the brain",
            ),
            _f(
                "is made of fine parallel leaves called folia",
                "has thin leaf-like folds called folia",
                "is folded into fine leaves, the folia",
            ),
            _f(
                "makes gait unsteady when alcohol impairs it",
                "is the reason why alcohol makes the gait unsteady",
                "is impaired by alcohol, so the gait gets unsteady",
            ),
        ),
        (
            _f(
                "lies under the occipital lobe, behind the brain stem",
                "sits behind the brain stem and below the occipital lobe",
                "is found below the occipital lobe and behind the brain stem",
            ),
            _f(
                "fills the posterior fossa",
                "occupies most of the posterior fossa",
                "is the largest part inside the posterior fossa",
            ),
            _f(
                "lies below the tentorium",
                "is separated from the cerebrum by the tentorium",
                "is the large part just below the tentorium",
            ),
            _f(
                "forms the roof of the fourth ventricle",
                "lies just behind the fourth ventricle",
                "is the roof behind the fourth ventricle",
            ),
        ),
    ),
    (
        "brain stem",
        ("the brain stem", "the brainstem", "the stem of the brain"),
        (
            _f(
                "controls breathing and heartbeat",
                "keeps breathing and heart rate going",
                "is in control of breathing and the heart",
            ),
            _f(
                "consists of midbrain, pons and medulla",
                "is made of the midbrain, the pons and the medulla",
                "includes the pons, the medulla and the midbrain",
            ),
            _f(
                "gives rise to most cranial nerves",
                "is where most cranial nerves come out",
                "is the origin of most cranial nerves",
            ),
            _f(
                "keeps us awake through the reticular formation",
                "contains the reticular formation, which keeps us awake",
                "has the reticular formation for staying awake",
            ),
            _f(
                "causes locked-in syndrome when damaged",
                "leads to locked-in syndrome if the pons is injured",
                "is damaged in locked-in syndrome",
            ),
            _f(
                "controls reflexes such as swallowing and coughing",
                "runs the swallowing and coughing reflexes",
                "is the center of coughing and swallowing",
            ),
        ),
        (
            _f(
                "connects the brain with the spinal cord",
                "joins the brain to the spinal cord",
                "is the connection between the brain and the spinal cord",
            ),
            _f(
                "lies in front of the cerebellum",
                "sits just in front of the cerebellum",
                "is found in front of the cerebellum",
            ),
            _f(
                "passes down through the foramen magnum",
                "ends at the foramen magnum",
                "goes down to the foramen magnum",
            ),
            _f(
                "lies below the thalamus in the midline",
                "continues down in the midline from the thalamus",
                "is found in the midline below the thalamus",
            ),
        ),
    ),
    (
        "thalamus",
        ("the thalamus", "the thalami", "the left and right thalamus"),
        (
            _f(
                "relays sensory signals to the cortex",
                "passes nearly all sensory signals on to the cortex",
                "is the relay of sensory signals",
            ),
            _f(
                "works as the brain's relay station",
                "is the central relay station of the brain",
                "acts as a relay station",
            ),
            _f(
                "contains the geniculate nuclei for sight and sound",
                "has the lateral and the medial geniculate nuclei",
                "is made of many nuclei such as the geniculate ones",
            ),
            _f(
                "receives visual signals from the optic tract",
                "is where the optic tract ends",
                "is the first stop of visual signals from the optic tract",
            ),
            _f(
                "generates sleep spindles",
                "makes the spindles of deep sleep",
                "is the source of sleep spindles",
            ),
            _f(
                "is a target of deep brain stimulation for tremor",
                "gets electrodes of deep brain stimulation against tremor",
                "is stimulated with deep electrodes to stop tremor",
            ),
        ),
        (
            _f(
                "lies on both sides of the third ventricle",
                "borders the third ventricle on the left and right",
                "is the pair on both sides of the third ventricle",
            ),
            _f(
                "lies on top of the midbrain",
                "sits directly above the midbrain",
                "is on top, just above the midbrain",
            ),
            _f(
                "is medial to the posterior limb of the internal capsule",
                "touches the posterior limb of the internal capsule from the inside",
                "is found medial to the internal capsule's posterior limb",
            ),
            _f(
                "is an egg-shaped mass of grey matter in the center of the brain",
                "forms two egg-shaped masses near the center of the brain",
                "is the egg-shaped mass at the center",
            ),
        ),
    ),
    (
        "caudate nucleus",
        ("the caudate nucleus", "the caudate", "the caudate nuclei"),
        (
            _f(
                "guides goal-directed learning",
                "supports learning of goal-directed actions",
                "helps with goal-directed actions and learning",
            ),
            _f(
                "shrinks in Huntington's disease",
                "is known for shrinking early in Huntington's disease",
                "is seen to shrink when there is Huntington's disease",
            ),
            _f(
                "has a head, a body and a tail",
                "consists of a big head, a body and a thin tail",
                "is made of head, body and tail",
            ),
            _f(
                "is the C-shaped nucleus of the basal ganglia",
                "curves like the letter C as part of the basal ganglia",
                "is a C-shaped part of the basal ganglia",
            ),
            _f(
                "is overactive in obsessive-compulsive disorder",
                "shows too much activity in obsessive-compulsive disorder",
                "is too active in people with obsessive-compulsive disorder",
            ),
            _f(
                "helps to control eye movements called saccades",
                "works with the frontal eye fields on saccades",
                "is involved in saccades of the eye",
            ),
        ),
        (
            _f(
                "bulges into the frontal horn of the lateral ventricle",
                "forms the outer wall of the frontal horn of the lateral ventricle",
                "is the bulge in the wall of the frontal horn",
            ),
            _f(
                "is separated from the putamen by the internal capsule",
                "lies across the internal capsule from the putamen",
                "is on the other side of the internal capsule from the putamen",
            ),
            _f(
                "follows the curve of the lateral ventricle",
                "runs along the whole curve of the lateral ventricle",
                "is next to the lateral ventricle and follows its curve",
            ),
            _f(
                "lies in front of the thalamus with its head",
                "has its head just in front of the thalamus",
                "is found with the head in front of the thalamus",
            ),
        ),
    ),
    (
        "putamen",
        ("the putamen", "the putamina", "the left and right putamen"),
        (
            _f(
                "drives learned motor habits",
                "stores motor habits that were learned",
                "is used for motor habits",
            ),
            _f(
                "is the most common site of hypertensive bleeding",
                "is where hypertensive bleeding happens most often",
                "is the usual site of a hypertensive bleeding",
            ),
            _f(
                "forms the lentiform nucleus with the globus pallidus",
                "is joined with the globus pallidus in the lentiform nucleus",
                "makes up the lentiform nucleus together with the globus pallidus",
            ),
            _f(
                "receives the motor input of the basal ganglia",
                "is the main motor input of the basal ganglia",
                "is the input of the basal ganglia for motor signals",
            ),
            _f(
                "is the largest nucleus of the basal ganglia",
                "is the biggest and most round nucleus of the basal ganglia",
                "is the largest, most round of the basal ganglia",
            ),
            _f(
                "loses dopamine first in Parkinson's disease",
                "lacks dopamine early in Parkinson's disease",
                "is short of dopamine in Parkinson's disease",
            ),
        ),
        (
            _f(
                "lies lateral to the globus pallidus",
                "sits on the outer side of the globus pallidus",
                "is found lateral to the globus pallidus",
            ),
            _f(
                "lies between the external capsule and the globus pallidus",
                "is bordered by the external capsule on its outer side",
                "is just inside the external capsule",
            ),
            _f(
                "lies medial to the claustrum",
                "is next to the claustrum, on its inner side",
                "is found medial to the claustrum",
            ),
            _f(
                "is the outer part of the lentiform nucleus",
                "makes up the outer shell of the lentiform nucleus",
                "is the outer shell in the lentiform nucleus",
            ),
        ),
    ),
    (
        "lateral ventricles",
        ("the lateral ventricles", "the lateral ventricle", "the left and right lateral ventricle"),
        (
            _f(
                "is filled with cerebrospinal fluid",
                "holds cerebrospinal fluid",
                "is full of cerebrospinal fluid",
            ),
            _f(
                "makes cerebrospinal fluid in its choroid plexus",
                "contains a choroid plexus that makes fluid",
                "is where the choroid plexus makes the fluid",
            ),
            _f(
                "grows wide in hydrocephalus",
                "is enlarged in hydrocephalus",
                "gets wide and enlarged when there is hydrocephalus",
            ),
            _f(
                "is lined by ependymal cells",
                "has a lining of ependymal cells",
                "is a space with a lining of ependymal cells",
            ),
            _f(
                "is a pair of hollow spaces with frontal, occipital and temporal horns",
                "has frontal, occipital and temporal horns",
                "is hollow, with temporal, frontal and occipital horns",
            ),
            _f(
                "gets drained by a shunt",
                "is the space where a shunt is placed",
                "is drained when a shunt is placed",
            ),
        ),
        (
            _f(
                "lies below the corpus callosum as two cavities",
                "is the pair of cavities under the corpus callosum",
                "is found as two cavities below the corpus callosum",
            ),
            _f(
                "is separated by the septum pellucidum",
                "lies on both sides of the septum pellucidum",
                "is found beside the septum pellucidum",
            ),
            _f(
                "opens into the third ventricle through the foramen of Monro",
                "drains through the foramen of Monro",
                "is above the foramen of Monro and opens into it",
            ),
            _f(
                "lies as a dark butterfly shape in the middle of the hemispheres",
                "looks like a dark butterfly in the middle of the image",
                "is the dark butterfly shape in the middle",
            ),
        ),
    ),
    (
        "hippocampus",
        ("the hippocampus", "the hippocampi", "the left and right hippocampus"),
        (
            _f(
                "consolidates memories",
                "turns short-term memories into long-term ones",
                "is where new memories get consolidated",
            ),
            _f(
                "forms new memories of facts and events",
                "stores new memories of events",
                "is needed for new memories of facts and events",
            ),
            _f(
                "shrinks early in Alzheimer's disease",
                "is one of the first to shrink in Alzheimer's disease",
                "is known to shrink in Alzheimer's disease",
            ),
            _f(
                "contains place cells for navigation",
                "holds a map made of place cells",
                "is used for navigation with its place cells",
            ),
            _f(
                "is shaped like a seahorse",
                "is named after the seahorse",
                "looks like a seahorse",
            ),
            _f(
                "causes amnesia when removed on both sides",
                "leads to amnesia when it is lost",
                "is lost in a person with amnesia",
            ),
            _f(
                "contains the dentate gyrus with its newborn neurons",
                "includes the dentate gyrus",
                "has newborn neurons in the dentate gyrus",
            ),
        ),
        (
            _f(
                "lies in the medial temporal lobe",
                "sits in the medial part of the temporal lobe",
                "is found deep in the medial temporal lobe",
            ),
            _f(
                "lies in the floor of the temporal horn of the lateral ventricle",
                "forms the floor of the temporal horn",
                "is on the floor of the temporal horn",
            ),
            _f(
                "lies just behind the amygdala",
                "follows directly behind the amygdala",
                "is found behind the amygdala",
            ),
            _f(
                "lies above the parahippocampal gyrus",
                "rests on the parahippocampal gyrus",
                "is just above the parahippocampal gyrus",
            ),
        ),
    ),
    (
        "insula",
        ("the insula", "the insular cortex", "the insular lobe"),
        (
            _f("processes taste", "gives us the sense of taste", "is where taste is processed"),
            _f(
                "senses the inner state of the body",
                "feels the inner state of the body, such as hunger",
                "is for sensing hunger and the inner body state",
            ),
            _f(
                "is active when we feel disgust",
                "produces the feeling of disgust",
                "lets us feel disgust",
            ),
            _f(
                "makes us aware of our own heartbeat",
                "gives awareness of the own heartbeat",
                "is for awareness of our heartbeat",
            ),
            _f(
                "drives the craving of smokers",
                "is tied to craving for cigarettes in smokers",
                "is behind the craving that smokers have",
            ),
            _f(
                "is divided by a central sulcus into short and long gyri",
                "consists of short gyri and long gyri",
                "has short and long gyri",
            ),
        ),
        (
            _f(
                "lies hidden deep in the Sylvian fissure",
                "is buried in the Sylvian fissure",
                "is found hidden in the depth of the Sylvian fissure",
            ),
            _f(
                "is covered by the opercula",
                "lies under the opercula of the lobes",
                "is hidden and covered by opercula",
            ),
            _f(
                "lies lateral to the claustrum, under the surface",
                "sits on the lateral side of the extreme capsule",
                "is found lateral to the extreme capsule and the claustrum",
            ),
            _f(
                "is the island of cortex that cannot be seen from outside",
                "is an island of cortex hidden from outside",
                "is the hidden island of cortex",
            ),
        ),
    ),
    (
        "cerebral white matter",
        ("the cerebral white matter", "the white matter", "the white matter of the cerebrum"),
        (
            _f(
                "is made of myelinated axons",
                "consists mostly of myelinated axons",
                "is built of axons that are myelinated",
            ),
            _f(
                "carries signals between distant regions",
                "connects distant regions with each other",
                "is the wiring between distant regions",
            ),
            _f(
                "shows plaques in multiple sclerosis",
                "is where plaques of multiple sclerosis appear",
                "has the plaques when there is multiple sclerosis",
            ),
            _f(
                "is bright in a T1 image because of its fat-rich myelin",
                "gets its bright color in T1 images from myelin",
                "is bright from myelin in T1",
            ),
            _f(
                "is mapped with diffusion tensor tractography",
                "shows its fiber tracts in diffusion tractography",
                "is seen in tractography as fiber tracts",
            ),
            _f(
                "includes the corpus callosum and the corona radiata",
                "contains bundles such as the corona radiata",
                "has the corpus callosum and corona radiata as its bundles",
            ),
        ),
        (
            _f(
                "lies beneath the cortex",
                "fills the space beneath the cortex",
                "is found directly beneath the cortex",
            ),
            _f(
                "lies between the cortex and the deep nuclei",
                "fills the room between the cortex and the basal ganglia",
                "is between the cortex and the deep nuclei",
            ),
            _f(
                "surrounds the lateral ventricles as the centrum semiovale",
                "includes the centrum semiovale above the ventricles",
                "is the centrum semiovale around and above the ventricles",
            ),
            _f(
                "forms the core of every gyrus",
                "is the inner core of each gyrus",
                "makes the core of a gyrus",
            ),
        ),
    ),
    (
        "cerebral cortex",
        ("the cerebral cortex", "the cortex", "the cortical grey matter"),
        (
            _f(
                "has six layers of neurons",
                "is built of six layers",
                "is made of neurons in six layers",
            ),
            _f(
                "is folded into gyri and sulci",
                "forms all the gyri and sulci of the cerebrum",
                "has folds called gyri and sulci",
            ),
            _f(
                "is a thin sheet of grey matter",
                "is a sheet of grey matter two to four millimeters thick",
                "is the thin sheet of grey matter, some millimeters thick",
            ),
            _f(
                "is divided into Brodmann areas",
                "is mapped by Brodmann areas",
                "has the Brodmann areas",
            ),
            _f(
                "contains pyramidal neurons in columns",
                "is organized in columns with pyramidal neurons",
                "has pyramidal neurons organized in columns",
            ),
            _f(
                "is the seat of conscious thought",
                "produces conscious thought",
                "is where conscious thought takes place",
            ),
        ),
        (
            _f(
                "covers the outer surface of both hemispheres",
                "is the outer surface of the hemispheres",
                "is found on the outer surface of both hemispheres",
            ),
            _f(
                "lies just beneath the pia mater",
                "is directly covered by the pia mater",
                "is found beneath the pia mater",
            ),
            _f(
                "wraps around the white matter",
                "surrounds the white matter like a mantle",
                "is wrapped around the white matter as a mantle",
            ),
            _f(
                "is the outermost layer of the cerebrum",
                "forms the outermost rim of the cerebrum",
                "is the outermost rim and layer of the cerebrum",
            ),
        ),
    ),
    (
        "frontal lobe",
        ("the frontal lobe", "the frontal lobes", "the left and right frontal lobe"),
        (
            _f(
                "plans actions and makes decisions",
                "is used for planning and decisions",
                "is where decisions and plans are made",
            ),
            _f(
                "contains the primary motor cortex",
                "starts voluntary movement from the primary motor cortex",
                "includes the primary motor cortex for voluntary movement",
            ),
            _f(
                "contains Broca's area for speech production",
                "produces speech with Broca's area",
                "has Broca's area for the production of speech",
            ),
            _f(
                "controls impulses and personality",
                "shapes personality and keeps impulses back",
                "is for personality and the control of impulses",
            ),
            _f(
                "was injured in Phineas Gage",
                "is the part that Phineas Gage had injured",
                "is known from the case of Phineas Gage",
            ),
            _f(
                "holds the prefrontal cortex for executive function",
                "carries out executive function in the prefrontal cortex",
                "is for executive function, in its prefrontal part",
            ),
        ),
        (
            _f(
                "lies at the front of the brain, behind the forehead",
                "sits right behind the forehead",
                "is at the front, just behind the forehead",
            ),
            _f(
                "lies in front of the central sulcus",
                "is everything in front of the central sulcus",
                "is found in front of the central sulcus",
            ),
            _f(
                "lies above the orbits of the eyes",
                "rests on the roof of the orbits",
                "is above the roof of the orbits",
            ),
            _f(
                "fills the anterior fossa",
                "occupies the anterior fossa",
                "is found inside the anterior fossa",
            ),
        ),
    ),
    (
        "parietal lobe",
        ("the parietal lobe", "the parietal lobes", "the left and right parietal lobe"),
        (
            _f(
                "processes touch in the somatosensory cortex",
                "contains the primary somatosensory cortex for touch",
                "is where touch is processed, the somatosensory cortex",
            ),
            _f(
                "gives the sense of space around the body",
                "is used for spatial sense and spatial attention",
                "is for the spatial sense of space and body",
            ),
            _f(
                "causes neglect of one side when damaged",
                "leads to neglect of one side of space",
                "is damaged in a person with neglect",
            ),
            _f(
                "is used for numbers and calculation",
                "does calculation with numbers",
                "helps with calculation and numbers",
            ),
            _f(
                "is damaged in Gerstmann syndrome",
                "causes Gerstmann syndrome when injured",
                "is injured in the Gerstmann syndrome",
            ),
            _f(
                "guides reaching for objects with the hand",
                "is needed for reaching with the hand",
                "helps the hand in reaching for objects",
            ),
        ),
        (
            _f(
                "lies behind the central sulcus",
                "begins right behind the central sulcus",
                "is found behind the central sulcus",
            ),
            _f(
                "lies between the frontal and the occipital lobe",
                "is bordered by the frontal lobe and the occipital lobe",
                "is found between the occipital and the frontal lobe",
            ),
            _f(
                "lies at the upper back part under the crown of the head",
                "is under the crown of the head",
                "is near the crown, the upper back part of the head",
            ),
            _f(
                "includes the precuneus and the postcentral gyrus",
                "reaches from the postcentral gyrus to the precuneus",
                "is where the precuneus and the postcentral gyrus lie",
            ),
        ),
    ),
    (
        "temporal lobe",
        ("the temporal lobe", "the temporal lobes", "the left and right temporal lobe"),
        (
            _f(
                "processes sound in the auditory cortex",
                "contains the primary auditory cortex for hearing",
                "is for hearing, as it has the auditory cortex",
            ),
            _f(
                "contains Wernicke's area for understanding speech",
                "understands speech with Wernicke's area",
                "has Wernicke's area, used for understanding speech",
            ),
            _f(
                "recognizes faces in the fusiform gyrus",
                "is used to recognize faces",
                "lets us recognize faces with the fusiform gyrus",
            ),
            _f(
                "is the most common source of focal epilepsy",
                "is often the source of focal epilepsy",
                "is the usual source of a focal epilepsy",
            ),
            _f(
                "is inflamed in herpes encephalitis",
                "is attacked by herpes encephalitis",
                "gets inflamed when there is herpes encephalitis",
            ),
            _f(
                "stores the meaning of words and objects",
                "is lost in semantic dementia, with the meaning of words",
                "holds the meaning of words",
            ),
        ),
        (
            _f(
                "lies below the Sylvian fissure, beside the ear",
                "sits beside the ear, under the Sylvian fissure",
                "is near the ear and below the Sylvian fissure",
            ),
            _f(
                "fills the middle fossa",
                "occupies the middle fossa",
                "is found inside the middle fossa",
            ),
            _f(
                "lies behind the temple of the head",
                "is on the side of the head, at the temple",
                "is found at the temple on the side of the head",
            ),
            _f(
                "carries the superior, middle and inferior temporal gyri on its side",
                "is made of three gyri below the lateral sulcus",
                "is where the superior, middle and inferior temporal gyri lie",
            ),
        ),
    ),
    (
        "occipital lobe",
        ("the occipital lobe", "the occipital lobes", "the left and right occipital lobe"),
        (
            _f(
                "processes vision",
                "handles what the eyes see, so it is needed for vision",
                "is needed to process vision",
            ),
            _f(
                "contains the primary visual cortex",
                "is the seat of the visual cortex",
                "has the primary visual cortex inside",
            ),
            _f(
                "causes cortical blindness when damaged",
                "leads to cortical blindness if it is lost",
                "is damaged in cortical blindness",
            ),
            _f(
                "detects color and edges in what we see",
                "sees color and edges first",
                "is for color and edges that we see",
            ),
            _f(
                "causes visual aura in migraine",
                "is where the visual aura of migraine begins",
                "makes the aura that comes with migraine",
            ),
            _f(
                "is supplied by the posterior cerebral artery",
                "is hit by a stroke of the posterior cerebral artery",
                "gets its blood from the posterior cerebral artery",
            ),
        ),
        (
            _f(
                "lies at the very back of the cerebrum",
                "is the most posterior lobe, at the back of the cerebrum",
                "is the lobe at the very back",
            ),
            _f(
                "contains the calcarine sulcus on its inner face",
                "surrounds the calcarine sulcus",
                "is found around the calcarine sulcus",
            ),
            _f(
                "lies above the tentorium and the cerebellum",
                "rests on the tentorium, above the cerebellum",
                "is found above the cerebellum, resting on the tentorium",
            ),
            _f(
                "lies behind the parieto-occipital sulcus",
                "begins behind the parieto-occipital sulcus",
                "is found behind the parieto-occipital sulcus",
            ),
        ),
    ),
    (
        "cingulate cortex",
        ("the cingulate cortex", "the cingulate gyrus", "the cingulate"),
        (
            _f(
                "monitors errors and conflict",
                "notices errors and conflict between actions",
                "is for monitoring of conflict and errors",
            ),
            _f(
                "gives pain its emotional side",
                "makes pain feel unpleasant, the emotional side of it",
                "is for the emotional and unpleasant side of pain",
            ),
            _f(
                "belongs to the limbic system as its longest gyrus",
                "is the long gyrus of the limbic system",
                "is a long gyrus that belongs to the limbic system",
            ),
            _f(
                "motivates us to act, and its loss causes akinetic mutism",
                "causes akinetic mutism when damaged",
                "is damaged in a person with akinetic mutism",
            ),
            _f(
                "is part of the Papez circuit above the callosum",
                "sends its cingulum fibers along the Papez circuit",
                "is in the Papez circuit and has the cingulum",
            ),
            _f(
                "is a stimulation target for severe depression in its subgenual part",
                "shows changed activity in its subgenual part in depression",
                "has a subgenual part that matters in depression",
            ),
        ),
        (
            _f(
                "lies just above the corpus callosum",
                "sits on top of the corpus callosum",
                "is found just above and on top of the corpus callosum",
            ),
            _f(
                "wraps around the corpus callosum like a belt",
                "forms a belt around the corpus callosum",
                "is the belt that wraps the corpus callosum",
            ),
            _f(
                "lies on the medial wall of the hemisphere, beside the falx",
                "is found on the medial wall, next to the falx",
                "is beside the falx, on the medial wall",
            ),
            _f(
                "lies between the callosal sulcus and the cingulate sulcus",
                "is bordered by the callosal sulcus below",
                "is found above the callosal sulcus",
            ),
        ),
    ),
    (
        "whole brain",
        ("the whole brain", "the brain", "the entire brain"),
        (
            _f(
                "weighs about one and a half kilograms",
                "has a weight of about one and a half kilograms",
                "is about one and a half kilograms in weight",
            ),
            _f(
                "includes the cerebrum, the cerebellum and the brain stem together",
                "is the cerebrum, the cerebellum and the brain stem in one",
                "is all of cerebrum, cerebellum and brain stem together",
            ),
            _f(
                "uses a fifth of the body's energy",
                "burns a fifth of all energy of the body",
                "takes a fifth of the energy in the body",
            ),
            _f(
                "is the organ of the mind",
                "is the organ that makes the mind",
                "is our organ of mind",
            ),
            _f(
                "is what remains after skull stripping",
                "is kept by skull stripping",
                "is left after the stripping of the skull",
            ),
            _f(
                "is the complete organ studied by neurology",
                "is the organ that neurology is about",
                "is studied by neurology as a complete organ",
            ),
        ),
        (
            _f(
                "fills the skull",
                "lies inside the skull and fills it completely",
                "is everything that fills the skull",
            ),
            _f(
                "is enclosed by the cranium and the meninges",
                "lies within the meninges and the cranium",
                "is what the cranium and the meninges enclose",
            ),
            _f(
                "reaches from the forehead to the back of the head",
                "extends from the forehead all the way to the back of the head",
                "is all that extends from forehead to back of the head",
            ),
            _f(
                "lies within the head, bathed in fluid, as one organ",
                "is the one organ inside the head bathed in fluid",
                "is the organ in the head that is bathed in fluid",
            ),
        ),
    ),
)

_PRONOUNS = {"lateral ventricles": "The pair"}

STRUCTURES: tuple[Structure, ...] = tuple(
    Structure(i, name, synonyms, attributes, locations, _PRONOUNS.get(name, "It"))
    for i, (name, synonyms, attributes, locations) in enumerate(_ENTRIES, start=1)
)
"""All structures in the order of their ids, 1 to 16."""

NAMES: tuple[str, ...] = tuple(structure.name for structure in STRUCTURES)
"""Canonical names in the order of the ids."""

_BY_NAME = {structure.name: structure for structure in STRUCTURES}


def structure(name_or_id: str | int) -> Structure:
    """Look a structure up by canonical name or id.

    Raises:
        KeyError: if there is none; the text lists the names.
    """
    found = (
        _BY_NAME.get(name_or_id.lower())
        if isinstance(name_or_id, str)
        else next((s for s in STRUCTURES if s.id == name_or_id), None)
    )
    if found is None:
        raise KeyError(
            f"structure: expected an id in 1..{len(STRUCTURES)} or one of {', '.join(NAMES)}, "
            f"got {name_or_id!r}"
        )
    return found
