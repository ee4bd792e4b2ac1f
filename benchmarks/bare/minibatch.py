"""The program of minibatch as its article has it, without the drawing."""

import torch

x = torch.randn(1000, 2)
y = 2 * x[:, 0] - 3.4 * x[:, 1] + 4.2 + 0.01 * torch.randn(1000)
w = (0.01 * torch.randn(2, 1)).requires_grad_()
b = torch.zeros(1, requires_grad=True)
for epoch in range(3):
    for rows in torch.randperm(1000).split(10):
        loss = ((x[rows] @ w + b - y[rows].unsqueeze(1)) ** 2 / 2).sum()
        loss.backward()
        for p in (w, b):
            p.data -= 0.03 * p.grad / 10
            p.grad.zero_()
    with torch.no_grad():
        print(epoch + 1, ((x @ w + b - y.unsqueeze(1)) ** 2 / 2).mean().item())
print(w.flatten().tolist(), b.item())
