"""Models as transformers saves them, with random weights: small, but of the real classes."""

import torch
from sentencepiece import SentencePieceTrainer
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CORPUS = ["a small red circle left of a large blue square", "two green cats on a grey background", LETTERS]
LONGEST = 12
ENDS = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer():
    """Of single letters, but for red and cat, which are merged."""
    merges = [("r", "e"), ("re", "d</w>"), ("c", "a"), ("ca", "t</w>")]
    tokens = ["!", *LETTERS, *(f"{one}</w>" for one in LETTERS), *("".join(pair) for pair in merges), *ENDS]
    return CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=merges)


def clip_config():
    words = len(LETTERS) * 2 + 7
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": words - 2, "eos_token_id": words - 1, "pad_token_id": words - 1}
    return CLIPTextConfig(vocab_size=words, max_position_embeddings=LONGEST, **sizes, **ends)


def save_clip(folder):
    torch.manual_seed(0)
    CLIPTextModel(clip_config()).save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)


def whole_clip():
    """With its image encoder, as models are published."""
    torch.manual_seed(1)
    image = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = CLIPConfig(text_config=clip_config().to_dict(), vision_config=image | {"image_size": 8, "patch_size": 4})
    return CLIPModel(config).eval()


def save_whole_clip(folder):
    """With all that it takes to score an image of 8 pixels."""
    whole_clip().save_pretrained(folder)
    size = {"height": 8, "width": 8}
    CLIPProcessor(CLIPImageProcessor(size={"shortest_edge": 8}, crop_size=size), clip_tokenizer()).save_pretrained(
        folder
    )


def save_t5(folder):
    """The tokenizer as a file of sentencepiece alone, as the published ones are."""
    torch.manual_seed(0)
    config = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "feed_forward_proj": "gated-gelu"}
    T5EncoderModel(T5Config(vocab_size=256, **config)).save_pretrained(folder)
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    (folder / "corpus.txt").write_text("\n".join(CORPUS))
    SentencePieceTrainer.train(
        input=folder / "corpus.txt",
        model_prefix=str(folder / "spiece"),
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        **ids,
    )
