"""Writes a tiny random Llama for vLLM's dummy loader: a configuration and a tokenizer, no weights and no download."""

import json
import pathlib
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def main(folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=["<|end|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    words = "the pointsman sets the points that send each train to its own track and then waits for the next one".split()
    tokenizer.train_from_iterator((f"{a} {b} {c}." for a in words for b in words for c in words), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert tokenizer.get_vocab_size() <= 1024, tokenizer.get_vocab_size()

    def write(name: str, value: dict) -> None:
        (folder / name).write_text(json.dumps(value, indent=2))

    write(
        "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "vocab_size": 1024,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": True,
            "torch_dtype": "float32",
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 1,
        },
    )
    write(
        "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|end|>",
            "pad_token": "<|pad|>",
            "model_max_length": 4096,
            "chat_template": TEMPLATE,
        },
    )
    write("generation_config.json", {"eos_token_id": 0, "pad_token_id": 1})


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
