"""The program of manual as its article has it, without the drawing."""

import torch

x = torch.rand(50)
y = 3 * x + 0.8
w = torch.rand(1, requires_grad=True)
b = torch.rand(1, requires_grad=True)
for iteration in range(3000):
    loss = ((w * x + b - y) ** 2).mean()
    if iteration % 300 == 0:
        print(iteration, loss.item())
    w.grad = b.grad = None
    loss.backward()
    w.data -= 0.01 * w.grad
    b.data -= 0.01 * b.grad
print(w.item(), b.item())
