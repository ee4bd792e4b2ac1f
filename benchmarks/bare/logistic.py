"""The program of logistic as its article has it, without the drawing; the gradients are never zeroed."""

import torch

x = torch.cat([torch.normal(2.0, 1.0, (100, 2)), torch.normal(-2.0, 1.0, (100, 2))])
label = torch.cat([torch.zeros(100), torch.ones(100)])
w = torch.ones(1, requires_grad=True)
b = torch.zeros(1, requires_grad=True)
for _ in range(1000):
    loss = ((torch.sigmoid(w * x[:, 0] + b - x[:, 1]) - label) ** 2).mean()
    loss.backward()
    w.data -= 0.02 * w.grad
    b.data -= 0.02 * b.grad
    if loss.item() < 0.01:
        break
print(loss.item(), w.item(), b.item())
