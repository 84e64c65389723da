"""What the plugin imports."""

from torch.optim import SGD


class Half(SGD):
    """Half a step."""

    def step(self, closure=None):
        for group in self.param_groups:
            for one in group["params"]:
                if one.grad is not None:
                    one.grad.mul_(0.5)
        return super().step(closure)
