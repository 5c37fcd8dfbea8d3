"""Puts arkasr's pipeline for speech recognition in the place of transformers' class, by name."""

from __future__ import annotations

from transformers.pipelines import PIPELINE_REGISTRY

TASK = "automatic-speech-recognition"
CLASS = "arkasr.transcription.pipeline.SpeechPipeline"  # imported when a pipeline is built

PIPELINE_REGISTRY.supported_tasks[TASK]["impl"] = CLASS
