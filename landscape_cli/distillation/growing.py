"""A larger student's parameters from a smaller teacher's (thesis 4.3, 4.4.3), several networks at once.

Teacher and student are fully connected with equally many layers and the same activation; each layer of the student is
at least as wide. The student's first outputs are the teacher's classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from landscape_cli.errors import BadInput
from landscape_cli.models import Parameters
from landscape_cli.models.mlp import FeedForward


def check_growth(teacher: FeedForward, student: FeedForward) -> None:
    """Refuse a student that does not hold the teacher.

    Raises
    ------
    BadInput
        With the layer.
    """
    if len(teacher.widths) != len(student.widths):
        raise BadInput(
            f"model.hidden: {len(student.widths) - 2} hidden layers, and the teacher has {len(teacher.widths) - 2}; "
            "allowed: equally many"
        )
    if (teacher.activation, teacher.bias) != (student.activation, student.bias):
        raise BadInput("model: teacher and student differ in activation or biases; allowed: the same")
    last = len(teacher.widths) - 1
    for layer, (small, large) in enumerate(zip(teacher.widths, student.widths, strict=True)):
        if layer == 0 and small != large:
            raise BadInput(f"model: the teacher takes {small} inputs, the student {large}; allowed: equally many")
        if large < small:
            what = "outputs" if layer == last else f"hidden layer {layer}"
            raise BadInput(
                f"model.hidden: the student has {large} in {what}, the teacher {small}; allowed: as many or more"
            )


def project(student: Parameters, teacher: Parameters) -> Parameters:
    """Pr[w]: a student's parameters between the neurons that the teacher has too, the first of each layer."""
    return {name: _corner(student[name], tensor) for name, tensor in teacher.items()}


def padded(teacher: Parameters, student: Parameters) -> Parameters:
    """Put the teacher's parameters in the place of a student's between the same neurons; the others stay.

    Parameters
    ----------
    student
        What is there beside the teacher: zeros for a zero pad, an initialisation for a uniform pad.
    """
    grown = {name: tensor.clone() for name, tensor in student.items()}
    for name, tensor in teacher.items():
        _corner(grown[name], tensor).copy_(tensor)
    return grown


def zero_padded(teacher: Parameters, student: Parameters) -> Parameters:
    """Zeros beside the teacher: its function on its classes, exactly.

    A neuron with zeros before and behind it has no gradient, so that it stays what it is: what is trained is a network
    of the teacher's size with the student's outputs.
    """
    return padded(teacher, {name: torch.zeros_like(tensor) for name, tensor in student.items()})


def net2net(teacher: Parameters, student: Parameters, generators: Sequence[torch.Generator]) -> Parameters:
    """Net2WiderNet (Chen, Goodfellow, Shlens 2016): every new neuron is a copy of one of the teacher's.

    What leaves a neuron is shared out equally between it and its copies, so that the teacher's classes are computed as
    the teacher does. Outputs that the teacher lacks read the same neurons with the student's own, initial weights.

    Parameters
    ----------
    student
        An initialisation; its rows of new outputs are used.
    generators
        One a network, on the CPU: which neurons are copied.
    """
    layers = [name for name in teacher if name.endswith("weight")]
    networks = len(generators)
    chosen = torch.arange(teacher[layers[0]].shape[2]).expand(networks, -1)  # the inputs, each once
    grown = {}
    for number, name in enumerate(layers):
        weight = teacher[name]
        outs, wide = weight.shape[1], student[name].shape[1]
        copies = torch.stack([row.bincount(minlength=weight.shape[2]) for row in chosen]).to(weight)
        source = chosen.to(weight.device)
        shared = weight / copies[:, None]
        entered = shared.gather(2, source[:, None].expand(-1, outs, -1))
        bias = name.removesuffix("weight") + "bias"
        if number == len(layers) - 1:
            grown[name] = torch.cat([entered, student[name][:, outs:]], dim=1)
            if bias in teacher:
                grown[bias] = torch.cat([teacher[bias], student[bias][:, outs:]], dim=1)
            break
        own = torch.arange(outs)
        chosen = torch.stack([torch.cat([own, torch.randint(outs, (wide - outs,), generator=g)]) for g in generators])
        rows = chosen.to(weight.device)
        grown[name] = entered.gather(1, rows[:, :, None].expand(-1, -1, entered.shape[2]))
        if bias in teacher:
            grown[bias] = teacher[bias].gather(1, rows)
    return {name: grown[name] for name in student}


def _corner(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The first entries along each axis but the first, which counts networks; a view."""
    return tensor[(slice(None), *(slice(size) for size in like.shape[1:]))]
