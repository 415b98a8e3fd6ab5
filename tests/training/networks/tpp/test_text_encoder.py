import torch

from training.networks.tpp.text_encoder import TextEncoder


def test_words_and_sentences_are_robertas_through_one_projection(build):
    encoder = build(TextEncoder)
    input_ids = torch.randint(3, 50, (2, 3, 6))
    mask = torch.ones(2, 3, 6, dtype=torch.long)
    input_ids[1, 2, 4:], mask[1, 2, 4:] = 1, 0
    text = encoder(input_ids, mask)
    assert text.words.shape == (2, 3, 6, 32)
    assert text.sentences.shape == (2, 3, 32)
    alone = encoder.roberta(input_ids[1, 2, :4][None])  # a prompt by itself, without padding
    linear, norm, _ = encoder.resizer

    def project(features):
        x = features @ linear.weight.T + linear.bias
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-12).sqrt()
        return x * norm.weight + norm.bias

    words, sentence = project(alone.last_hidden_state[0]), project(alone.pooler_output[0])
    torch.testing.assert_close(text.words[1, 2, :4], words, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(text.sentences[1, 2], sentence, atol=1e-5, rtol=1e-4)
    assert text.mask[1, 2].tolist() == [True] * 4 + [False] * 2
