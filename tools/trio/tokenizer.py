"""The trio's tokenizer: one id per word, split at white space."""

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from world import SPECIAL, vocabulary

CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}{{- ' <user> ' + message['content'] }}"
    "{%- else %}{{- ' <asst> ' + message['content'] + ' <end>' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- ' <asst>' }}{%- endif %}"
)


def token_ids():
    return {token: i for i, token in enumerate(vocabulary())}


def build_tokenizer(instruct=False):
    """The tokenizer as transformers saves it; the instruct has a chat template and ends its turns with <end>."""
    ids = token_ids()
    tokenizer = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", ids["<bos>"])])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<end>" if instruct else "<eos>",
        unk_token="<unk>",
        pad_token="<pad>",
        additional_special_tokens=["<user>", "<asst>", "<end>"],
        model_max_length=256,
    )
    if instruct:
        wrapped.chat_template = CHAT_TEMPLATE
    return wrapped
