"""The name of a checkpoint's file, for those who only pass it on."""

CHECKPOINT = "checkpoint.safetensors"
