import pytest

from monai_synth.transforms import PromptFromClassd


def test_a_record_gets_its_prompt():
    record = {"class_name": "a", "image": 1}
    assert PromptFromClassd("class_name", {"a": "an a"})(record) == {"class_name": "a", "image": 1, "prompt": "an a"}


def test_a_class_without_a_prompt_is_named():
    with pytest.raises(KeyError, match="The class 'b' has no prompt. Prompts are known for \\['a'\\]"):
        PromptFromClassd("class_name", {"a": "an a"})({"class_name": "b"})
