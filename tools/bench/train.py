"""Steps of PyTorch's training for train.ts, on one thread: `python train.py <model> <steps>`"""

import sys
import time

import torch
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, experts_implementation="eager")
for name, parameter in model.named_parameters():
    parameter.requires_grad_(".experts." in name or name.endswith("gate.weight"))
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.98), weight_decay=0.05)
draws = torch.Generator().manual_seed(0)


def step():
    tokens = torch.randint(0, model.config.vocab_size, (16, 64), generator=draws)
    model(tokens, labels=tokens, output_router_logits=True).loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad()


for _ in range(3):
    step()
before, steps = time.process_time(), int(sys.argv[2])
for _ in range(steps):
    step()
print(f"{round(steps * 1024 / (time.process_time() - before))} tokens per CPU second")
