"""Token ids of Organ-Seg's prompts: a template with the image first and the question in it.

The template belongs to the trained adapter: it is the file `prompt.txt` beside the model.
"""

from serving.llava_prompt import LlavaTokenizer, explanation_prompt

ORGANSEG_HIDDEN_POSITIONS = (-1,)
"""Where the joint vision-language embedding is read, counted from the end of the prompt's ids."""

PLACEHOLDER = "{question}"
"""Stands in a template, exactly once, for what the user asks."""

DEMO_TEMPLATE = PLACEHOLDER
"""The question alone: the demo's vocabulary knows few words, and no others help it."""

MULTIPLE_CHOICE_TEMPLATE = f"""\
Please answer the following multiple-choice question based on the image analysis and generate a \
segmentation mask for the correct organ.
Options: A. Liver, B. Right kidney, C. Spleen, D. Pancreas, E. Aorta, F. Inferior Vena Cava \
(IVC), G. Right Adrenal Gland (RAG), H. Left Adrenal Gland (LAG), I. Gallbladder, J. Esophagus, \
K. Stomach, L. Duodenum, M. Left kidney, N. None of them
Instructions for Assistant:
1) Analyze the image carefully and identify the relevant organ.
2) Choose the correct answer from the given options.
3) Provide a short explanation for your answer, clarifying the function of the chosen organ.
4) If none of the options are correct based on the image, select "None of them."
5) Generate the segmentation mask for the selected organ and provide segmentation information \
(bounding box coordinates, organ label).
Question: {PLACEHOLDER}"""
"""The paper's prompt at full size (section IV). The question stands last, after the options and
instructions: so all questions about one image share these, and their prefix cache."""


def check_template(template: str) -> str:
    """Return a template as it is.

    Raises:
        ValueError: if the question's place is missing or there twice.
    """
    if template.count(PLACEHOLDER) != 1:
        raise ValueError(
            f"template: expected {PLACEHOLDER} exactly once, got it "
            f"{template.count(PLACEHOLDER)} times; write it where the question goes"
        )
    return template


def organseg_prompt(tokenizer: LlavaTokenizer, question: str, template: str) -> list[int]:
    """Ids of one question; the last token's hidden state is the joint embedding.

    Args:
        tokenizer: Tokenizer of the base vocabulary.
        question: What the user asks; nothing in it is special.
        template: Text behind the image, with `PLACEHOLDER`.

    Raises:
        ValueError: if the template has no place for the question, or two.
    """
    return explanation_prompt(tokenizer, check_template(template).replace(PLACEHOLDER, question))
