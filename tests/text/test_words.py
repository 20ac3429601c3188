"""The learned vocabulary: what it keeps, what it hears, and what it says of what it cannot hear."""

import pytest
import torch

from smallbatch.errors import UserError
from smallbatch.notation import TextSpec
from smallbatch.text.words import LONGEST, NAMED, Words

CAPTIONS = ["A small red circle.", "two GREEN squares, one red", "a red circle -- left of it"]


def test_the_vocabulary_depends_neither_on_the_captions_order_nor_on_how_often_a_word_comes():
    once = Words().learned(iter(CAPTIONS))
    assert once.words == ("a", "circle", "green", "it", "left", "of", "one", "red", "small", "squares", "two")
    assert Words().learned([*reversed(CAPTIONS), *CAPTIONS]).words == once.words
    assert once.spec == TextSpec(length=6, words=12)


def test_without_a_length_captions_are_heard_to_the_end_of_the_longest_but_not_without_limit():
    assert Words().learned(["a red fox", "a fox"]).length == 3 and Words(["red"]).learned(["a red fox"]).length == 3
    assert Words(length=2).learned(["a red fox"]).length == 2
    assert Words().learned(["fox " * 300]).length == LONGEST


def test_a_word_keeps_what_is_inside_it_and_loses_the_punctuation_around_it():
    assert Words().learned(["(The) man\N{RIGHT SINGLE QUOTATION MARK}s T-shirt, 'CAFE\u0301'!"]).words == (
        "café",
        "man's",
        "t-shirt",
        "the",
    )


def test_words_are_numbered_from_1_and_an_unknown_one_is_heard_as_padding_is_stored():
    text = Words(["circle", "red"], length=4).tokens(["Red circle", "red fox circle", "", "circle red red circle red"])
    assert text.value.tolist() == [[2, 1, 0, 0], [2, 0, 1, 0], [0, 0, 0, 0], [1, 2, 2, 1]]
    assert text.mask.sum(dim=1).tolist() == [2, 3, 0, 4]


def test_what_cannot_be_heard_is_counted_and_named_with_the_nearest_words():
    words = Words(["circle", "green", "red"], length=3)
    assert words.misfits(["a red circle", "red red circle"]) == ["'a' was never seen: heard as unknown"]
    assert words.misfits(["gren circles green green", "red", "red red red circle"]) == [
        "2 of 3 captions are longer than 3 words: their ends are cut off",
        "'gren' was never seen: heard as unknown (did you mean 'green'?)",
        "'circles' was never seen: heard as unknown (did you mean 'circle'?)",
    ]
    assert words.misfits(["red red red red"]) == ["1 of 1 captions is longer than 3 words: its end is cut off"]
    assert words.misfits(["green red circle"]) == []


def test_of_many_unknown_words_a_few_are_named_and_the_rest_counted():
    lines = Words(["red"], length=99).misfits([" ".join(f"x{i} x{i}" for i in range(NAMED + 3))])
    assert len(lines) == NAMED + 1
    assert lines[-1] == "3 more words were never seen"


def test_what_is_described_hears_the_same():
    words = Words(length=7).learned(CAPTIONS)
    described = words.described()
    assert described.pop("_target_") == "smallbatch.text.words.Words"
    again = Words(**described)
    assert again.spec == words.spec
    assert torch.equal(again.tokens(CAPTIONS).value, words.tokens(CAPTIONS).value)


def test_a_vocabulary_that_weights_were_trained_with_is_not_learned_anew():
    assert Words(["red", "blue"]).learned(CAPTIONS).words == ("red", "blue")


@pytest.mark.parametrize("captions", [[], ["", " -- "]])
def test_captions_without_a_word_are_refused(captions):
    with pytest.raises(UserError, match="hold no word"):
        Words().learned(captions)


@pytest.mark.parametrize("words", [["Red"], ["red", "red"], ["dark red"], [""]])
def test_a_word_that_no_caption_can_say_is_refused(words):
    with pytest.raises(UserError, match=r"text\.words"):
        Words(words)


def test_a_length_without_room_for_a_word_is_refused():
    with pytest.raises(UserError, match=r"text\.length=0"):
        Words(length=0)
