"""Texts, tokenizers and transcripts with which several tests drive a token mapper."""

from __future__ import annotations

import json
from functools import lru_cache
from types import SimpleNamespace

import torch
from hypothesis import strategies as st
from tiny import bpe_bytes, piece_bytes, student_tokenizer, teacher_tokenizer
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from arkasr.builtin.losses import UnionTopkKl, UnionTopkKlOptions
from arkasr.builtin.mappers.common import NoMapperOptions
from arkasr.builtin.mappers.shared_strings import SharedStrings
from arkasr.distill.support import union_support
from arkasr.distributions.views import HeadView
from arkasr.plugins.registry import create

TEXT = st.text(
    st.one_of(
        st.sampled_from("the quick brown fox  'AZ09."),
        st.sampled_from("\u4f60\u597d\u4e16\u754c\u4eca\u5929\u9f98\uff0c"),
        st.sampled_from("\U0001f600\U0001f468\u200d\u00e9\u0301e\u00df\u1100\u1161"),
        st.characters(exclude_categories=["Cs"], exclude_characters="\u2581<"),
    ),
    max_size=16,
)

SPECIAL = ["<|im_end|>", "<|endoftext|>", "<|audio_pad|>"]


def side(tokenizer, *stops):
    return SimpleNamespace(tokenizer=tokenizer, stop_ids=[tokenizer.convert_tokens_to_ids(t) for t in stops])


@lru_cache
def parts():
    """The student's side, the teacher's side, the mapper, and both byte tables by another hand."""
    ours, theirs = side(student_tokenizer(), "<|im_end|>"), side(teacher_tokenizer(), "<|im_end|>", "<|endoftext|>")
    mapper = SharedStrings(NoMapperOptions(), student=ours, teacher=theirs)
    return ours, theirs, mapper, piece_bytes(ours.tokenizer), bpe_bytes(theirs.tokenizer)


def with_prefix(tokenizer):
    """A SentencePiece tokenizer that writes a space before every text, as those of Llama 2 and T5 do."""
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    spec["pre_tokenizer"]["prepend_scheme"] = "always"
    backend, stop = Tokenizer.from_str(json.dumps(spec)), "<|im_end|>"
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=stop, unk_token="<unk>")


@lru_cache
def prefixed():
    """The same as `parts` for a teacher whose tokenizer writes a space of its own."""
    ours, theirs = side(teacher_tokenizer(), "<|im_end|>"), side(with_prefix(student_tokenizer()), "<|im_end|>")
    mapper = SharedStrings(NoMapperOptions(), student=ours, teacher=theirs)
    return ours, theirs, mapper, bpe_bytes(ours.tokenizer), piece_bytes(theirs.tokenizer)


@lru_cache
def byte_ids():
    """The student's byte-fallback token of every byte."""
    return {b: parts()[0].tokenizer.convert_tokens_to_ids(f"<0x{b:02X}>") for b in range(256)}


def chopped(text, choices):
    """Encode a text, some of whose pieces fall back to bytes."""
    ids = []
    for number, token in enumerate(parts()[0].tokenizer.encode(text, add_special_tokens=False)):
        split = choices[number % len(choices)] if choices else False
        ids += [byte_ids()[b] for b in parts()[3][token]] if split else [token]
    return ids


def consumed(pieces):
    """What tokens say together; None where one of them says nothing that is text."""
    return None if None in pieces else b"".join(pieces)


def rendered(ids, given=None):
    """Align one transcript the slow way: teacher ids, (student, teacher) positions, and whether all was read back."""
    ours, theirs, _, student_bytes, teacher_bytes = given or parts()
    stopped = len(ids) > 0 and ids[-1] in ours.stop_ids
    spelt = [student_bytes.get(i) for i in ids[: len(ids) - stopped]]
    data, text = b"".join(piece or b"" for piece in spelt), None
    for end in range(len(data), -1, -1):
        try:
            text = data[:end].decode("utf-8")
            break
        except UnicodeDecodeError:
            continue
    new = theirs.tokenizer.encode(text, add_special_tokens=False)
    read = [teacher_bytes.get(i) for i in new]
    spaced = given is prefixed() and not text.startswith(" ")
    if spaced and read and read[0] is not None:
        assert read[0][:1] == b" "
        read[0] = read[0][1:]
    same = b"".join(piece or b"" for piece in read) == data
    teacher_ids = [*new, theirs.stop_ids[0]] if (stopped and same) or not new else new
    pairs = []
    for s in range(len(ids)):
        done = consumed(spelt[:s])
        matches = [t for t in range(len(teacher_ids)) if done is not None and consumed(read[:t]) == done]
        pairs += [(s, t) for t in matches[:1] if done or not spaced]
    return teacher_ids, pairs, same


def drive(name, lm, teacher, clips, options=None):
    """Take a step's passes between a student and a teacher whose vocabularies differ, and check what was compared."""
    mapper = create("token_mapper", name, options or {}, student=lm, teacher=teacher)
    own = (lm.stop_ids if name == "byte_offsets" else teacher.stop_ids)[0]
    assert int(mapper.to_teacher(torch.tensor(lm.stop_ids[0]))) == own
    assert int(mapper.to_student(torch.tensor(own))) == lm.stop_ids[0]
    transcripts = [lm.text_ids(text) for text in (" the sea", " one \u4f60\u597d", "")]
    made = mapper.align(transcripts)
    student_bytes, teacher_bytes = piece_bytes(lm.tokenizer), bpe_bytes(teacher.tokenizer)
    read = [("s", ids, student_bytes) for ids in transcripts], [("t", ids, teacher_bytes) for ids in made.teacher_ids]
    ours, theirs = (
        [
            (clip, b"".join(table[i] for i in ids[:n]))
            for clip, (_, ids, table) in enumerate(rows)
            for n in range(len(ids))
        ]
        for rows in read
    )
    pairs = [(ours[s], theirs[t]) for s, t in zip(made.student_rows.tolist(), made.teacher_rows.tolist())]
    equal = [place for place in ours if place in theirs]
    assert made.num_mismatched == 0 and [s for s, t in pairs if s == t] == equal and len(equal) > 5
    assert [ids[-1] for ids in made.teacher_ids] == [teacher.stop_ids[0]] * 3
    assert len(pairs) == (len(ours) if name == "byte_offsets" else len(equal))
    view = mapper.translate(teacher.score(clips, ["English"] * 3, made.teacher_ids), made)
    prompts = lm.embed_prompts(lm.encode_audio(clips), ["English"] * 3)
    states = lm.transcript_states(prompts, transcripts)[made.student_rows]
    student = HeadView(states, lm.head, lm.blocked)
    visited = torch.tensor([i for ids in transcripts for i in ids])[made.student_rows]
    support = union_support(view.topk(8)[0], student.topk(8)[0], visited, mapper)
    known, said = view.logprobs_at(support.teacher_ids), student.logprobs_at(support.student_ids)
    assert known[support.valid].isfinite().all() and said[support.valid & support.from_student].isfinite().all()
    total, count = UnionTopkKl(UnionTopkKlOptions())(student, view, support)
    total.backward()
    assert int(count) == int((support.valid.sum(-1) >= 2).sum()) > 5 and 0 < float(total.detach()) < float("inf")
    assert all(p.grad.isfinite().all() for p in lm.hf.parameters() if p.grad is not None)
