from monai_synth.networks import clip_tokenizer


def test_ids_are_those_of_stable_diffusion():
    tokenizer = clip_tokenizer()
    assert len(tokenizer) == 49408
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
