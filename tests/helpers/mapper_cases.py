"""Texts, tokenizers and transcripts for tests of token mappers."""

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
    """Return student side, teacher side, mapper, and independently computed byte tables of student and teacher."""
    student, teacher = side(student_tokenizer(), "<|im_end|>"), side(teacher_tokenizer(), "<|im_end|>", "<|endoftext|>")
    mapper = SharedStrings(NoMapperOptions(), student=student, teacher=teacher)
    return student, teacher, mapper, piece_bytes(student.tokenizer), bpe_bytes(teacher.tokenizer)


def with_prefix(tokenizer):
    """Return a SentencePiece tokenizer that adds a space before every text, as those of Llama 2 and T5 do."""
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    spec["pre_tokenizer"]["prepend_scheme"] = "always"
    backend, stop = Tokenizer.from_str(json.dumps(spec)), "<|im_end|>"
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=stop, unk_token="<unk>")


@lru_cache
def prefixed():
    """Return the same as `parts` for a teacher whose tokenizer adds a space before every text."""
    student, teacher = side(teacher_tokenizer(), "<|im_end|>"), side(with_prefix(student_tokenizer()), "<|im_end|>")
    mapper = SharedStrings(NoMapperOptions(), student=student, teacher=teacher)
    return student, teacher, mapper, bpe_bytes(student.tokenizer), piece_bytes(teacher.tokenizer)


@lru_cache
def byte_ids():
    """Return the student's byte-fallback token of every byte."""
    return {b: parts()[0].tokenizer.convert_tokens_to_ids(f"<0x{b:02X}>") for b in range(256)}


def chopped(text, choices):
    """Encode a text. The pieces selected by `choices` are written as byte tokens."""
    ids = []
    for number, token in enumerate(parts()[0].tokenizer.encode(text, add_special_tokens=False)):
        split = choices[number % len(choices)] if choices else False
        ids += [byte_ids()[b] for b in parts()[3][token]] if split else [token]
    return ids


def consumed(pieces):
    """Return the bytes of all pieces together, or None if one of them is not text."""
    return None if None in pieces else b"".join(pieces)


def reference_alignment(ids, case=None):
    """Align one transcript: teacher ids, (student, teacher) positions, and whether the teacher reads the same bytes."""
    student, teacher, _, student_bytes, teacher_bytes = case or parts()
    stopped = len(ids) > 0 and ids[-1] in student.stop_ids
    student_pieces = [student_bytes.get(i) for i in ids[: len(ids) - stopped]]
    data, text = b"".join(piece or b"" for piece in student_pieces), None
    for end in range(len(data), -1, -1):
        try:
            text = data[:end].decode("utf-8")
            break
        except UnicodeDecodeError:
            continue
    read_ids = teacher.tokenizer.encode(text, add_special_tokens=False)
    teacher_pieces = [teacher_bytes.get(i) for i in read_ids]
    added_space = case is prefixed() and not text.startswith(" ")
    if added_space and teacher_pieces and teacher_pieces[0] is not None:
        assert teacher_pieces[0][:1] == b" "
        teacher_pieces[0] = teacher_pieces[0][1:]
    same = b"".join(piece or b"" for piece in teacher_pieces) == data
    teacher_ids = [*read_ids, teacher.stop_ids[0]] if (stopped and same) or not read_ids else read_ids
    pairs = []
    for s in range(len(ids)):
        done = consumed(student_pieces[:s])
        matches = [t for t in range(len(teacher_ids)) if done is not None and consumed(teacher_pieces[:t]) == done]
        pairs += [(s, t) for t in matches[:1] if done or not added_space]
    return teacher_ids, pairs, same


def drive(name, lm, teacher, clips, options=None):
    """Run the passes of one step between a student and a teacher with different vocabularies, and check them."""
    mapper = create("token_mapper", name, options or {}, student=lm, teacher=teacher)
    stop = (lm.stop_ids if name == "byte_offsets" else teacher.stop_ids)[0]
    assert int(mapper.to_teacher(torch.tensor(lm.stop_ids[0]))) == stop
    assert int(mapper.to_student(torch.tensor(stop))) == lm.stop_ids[0]
    transcripts = [lm.text_ids(text) for text in (" the sea", " one \u4f60\u597d", "")]
    alignment = mapper.align(transcripts)
    student_bytes, teacher_bytes = piece_bytes(lm.tokenizer), bpe_bytes(teacher.tokenizer)
    student_places, teacher_places = (
        [(clip, b"".join(table[i] for i in ids[:n])) for clip, ids in enumerate(rows) for n in range(len(ids))]
        for rows, table in ((transcripts, student_bytes), (alignment.teacher_ids, teacher_bytes))
    )
    rows = zip(alignment.student_rows.tolist(), alignment.teacher_rows.tolist())
    pairs = [(student_places[s], teacher_places[t]) for s, t in rows]
    equal = [place for place in student_places if place in teacher_places]
    assert alignment.num_mismatched == 0 and [s for s, t in pairs if s == t] == equal and len(equal) > 5
    assert [ids[-1] for ids in alignment.teacher_ids] == [teacher.stop_ids[0]] * 3
    assert len(pairs) == (len(student_places) if name == "byte_offsets" else len(equal))
    view = mapper.translate(teacher.score(clips, ["English"] * 3, alignment.teacher_ids), alignment)
    prompts = lm.embed_prompts(lm.encode_audio(clips), ["English"] * 3)
    states = lm.transcript_states(prompts, transcripts)[alignment.student_rows]
    student = HeadView(states, lm.head, lm.blocked)
    visited = torch.tensor([i for ids in transcripts for i in ids])[alignment.student_rows]
    support = union_support(view.topk(8)[0], student.topk(8)[0], visited, mapper)
    log_p_t, log_p_s = view.logprobs_at(support.teacher_ids), student.logprobs_at(support.student_ids)
    assert log_p_t[support.valid].isfinite().all() and log_p_s[support.valid & support.from_student].isfinite().all()
    total, count = UnionTopkKl(UnionTopkKlOptions())(student, view, support)
    total.backward()
    assert int(count) == int((support.valid.sum(-1) >= 2).sum()) > 5 and 0 < float(total.detach()) < float("inf")
    assert all(p.grad.isfinite().all() for p in lm.hf.parameters() if p.grad is not None)
