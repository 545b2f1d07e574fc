"""Loads and saves each upcycled base, as a trainer does: `python resave.py <work folder> v4|v5 <case> ...`

Run in the environment of that major, for the cases whose post that major wrote: both kinds of config come to the graft.
"""

import os
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM

from cases import CASES

transformers.utils.logging.disable_progress_bar()


def main(work, major, names):
    for case in CASES:
        source = f"{work}/{case['name']}/up-base"
        if case["name"] in names and case["writers"][1] == major and os.path.exists(source):
            model = AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, case["dtype"]))
            model.save_pretrained(f"{work}/{case['name']}/resaved")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], set(sys.argv[3:]))
