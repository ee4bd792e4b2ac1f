"""The program of noisy as its article has it, without the drawing; the gradients are never zeroed."""

import torch

torch.manual_seed(10)
x = 10 * torch.rand(20)
y = 2 * x + 5 + torch.randn(20)
w = torch.randn(1, requires_grad=True)
b = torch.zeros(1, requires_grad=True)
for _ in range(1000):
    loss = (0.5 * (y - (w * x + b)) ** 2).mean()
    loss.backward()
    w.data -= 0.1 * w.grad
    b.data -= 0.1 * b.grad
    if loss.item() < 1:
        break
print(loss.item(), w.item(), b.item())
