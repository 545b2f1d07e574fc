"""Steps of PyTorch's training for train.ts, `python train.py <model> <steps> <threads>`; by CPU time with one thread"""

import sys
import time

import torch
from transformers import AutoModelForCausalLM

threads = int(sys.argv[3])
torch.set_num_threads(threads)
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
clock, steps = (time.process_time if threads == 1 else time.perf_counter), int(sys.argv[2])
before = clock()
for _ in range(steps):
    step()
print(f"{round(steps * 1024 / (clock() - before))} tokens per {'CPU ' if threads == 1 else ''}second")
