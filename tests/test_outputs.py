"""Output records: every way of access that transformers' have."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
import twins

from minimobile.models.outputs import (
    BaseModelOutputWithPoolingAndNoAttention,
    ImageClassifierOutputWithNoAttention,
    SemanticSegmenterOutput,
)

LOGITS = np.arange(6.0).reshape(2, 3)
STATES = (np.zeros((2, 4, 5, 5)), np.ones((2, 4, 3, 3)))


def test_items_by_attribute_name_index_and_slice():
    out = ImageClassifierOutputWithNoAttention(logits=LOGITS, hidden_states=STATES)
    assert out.logits is out["logits"] is out[0] is out[-2]
    assert out[:2] == out.to_tuple() and out[1] is STATES and out[1:] == (STATES,)


def test_absent_items_are_none_as_attributes_and_nowhere_else():
    out = ImageClassifierOutputWithNoAttention(logits=LOGITS)
    assert out.loss is None and out.hidden_states is None
    assert list(out) == list(out.keys()) == ["logits"] and len(out) == 1 and "loss" not in out
    assert out.get("loss", 7) == 7 and dict(**out).keys() == {"logits"}
    with pytest.raises(KeyError, match="expected one of logits, got 'loss'"):
        out["loss"]
    with pytest.raises(KeyError, match="to_tuple"):  # a method is no item
        out["to_tuple"]
    with pytest.raises(IndexError):
        out[1]


def test_the_order_is_that_of_the_fields():
    out = SemanticSegmenterOutput(hidden_states=STATES, logits=LOGITS, loss=np.float32(2))
    assert list(out) == ["loss", "logits", "hidden_states"] and out[0] == np.float32(2)
    base = BaseModelOutputWithPoolingAndNoAttention(last_hidden_state=LOGITS, hidden_states=STATES)
    assert list(base) == ["last_hidden_state", "hidden_states"] and base[1] is STATES


def test_records_stay_as_they_are():
    out = SemanticSegmenterOutput(logits=LOGITS)
    with pytest.raises(dataclasses.FrozenInstanceError):
        out.logits = None
    assert out in {out} and out != SemanticSegmenterOutput(logits=LOGITS)
    assert np.array_equal(pickle.loads(pickle.dumps(out)).logits, LOGITS)


@pytest.mark.crosscheck
@pytest.mark.parametrize(
    "record",
    [BaseModelOutputWithPoolingAndNoAttention, ImageClassifierOutputWithNoAttention, SemanticSegmenterOutput],
)
def test_fields_of_transformers(record):
    twins.import_torch()
    from transformers import modeling_outputs

    ours, theirs = (
        [field.name for field in dataclasses.fields(each)]
        for each in (record, getattr(modeling_outputs, record.__name__))
    )
    assert ours[: len(theirs)] == theirs  # what quantised files have besides comes after them
    assert set(ours[len(theirs) :]) <= {"probabilities", "classes"}
