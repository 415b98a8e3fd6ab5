"""The lesion that phantoms can show, as something that can be asked for."""

from training.data.structures import Fact, Structure

LESION = Structure(
    id=14,
    name="lesion",
    synonyms=("the lesion", "the focal lesion", "the nodule"),
    attributes=(
        Fact(
            ("takes up less contrast than the organ around it", "enhances less than its organ"),
            "has less contrast than the organ that holds it",
        ),
        Fact(
            ("does not belong to a healthy body", "should not be there in a healthy person"),
            "is not found in a healthy body",
        ),
        Fact(
            ("could be a cyst or a tumour", "may be a tumour or a cyst"),
            "might be a cyst, or else a tumour",
        ),
    ),
    locations=(
        Fact(
            ("is a round dark spot inside an organ", "lies inside an organ as a dark round spot"),
            "is the dark round thing within an organ",
        ),
        Fact(
            ("is surrounded by normal organ tissue", "has normal tissue of an organ all around"),
            "lies with normal tissue on all sides",
        ),
    ),
)
"""One lesion of one of `training.data.phantoms.LESION_SITES`; its id follows the organs'."""
