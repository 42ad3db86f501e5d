"""A recogniser from one step of a neuron, given as a pure function.

A family states its state, its step and its number of drives; batch norm, the loop over time,
dropout, padding, streaming and the output layer are here::

    class MyState(NamedTuple):
        potential: Tensor
        spikes: Tensor          # the last member is what the layer sends

    class MyLayer(StepLayer):
        num_drives = 1
        state_type = MyState

        def step(self, drive_BG, recurrent_BG, state): ...

    class MyNetwork(StepNetwork):
        layer_type = MyLayer

Shape legend: T time, B batch, F input features, H neurons, G drives of all neurons (a multiple of
H), N packed valid frames.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from training.models.batch_norm import FrameBatchNorm
from training.models.frames import ValidFrames
from training.models.model_config import ModelConfig
from training.models.network import NetworkOutput, OutputLayer, SpeechNetwork, normalized_linear
from training.models.spiking import uniform_linear

State = tuple[Tensor, ...]


class _Deferred(torch.autograd.Function):
    """Zeros that take the gradient of ``sent[t] @ weight.T`` to the weight, in one product.

    Autograd would add one (G, H) matrix per frame. ``sent`` is filled while the frames run.
    """

    @staticmethod
    def forward(ctx, weight_GH, size, sent):  # type: ignore[no-untyped-def]
        ctx.sent = sent
        return weight_GH.new_zeros(size)

    @staticmethod
    def backward(ctx, grad_TBG):  # type: ignore[no-untyped-def]
        sent_NH = torch.cat(ctx.sent).to(grad_TBG)
        return grad_TBG.flatten(0, 1).T @ sent_NH, None, None


class _Feedback:
    """``U`` times what a layer sent, frame by frame."""

    def __init__(self, weight_GH: Tensor, drive_TBG: Tensor) -> None:
        self._sent: list[Tensor] = []
        deferred_TBG = _Deferred.apply(weight_GH, drive_TBG.shape, self._sent)  # type: ignore[no-untyped-call, unused-ignore]
        self._deferred = deferred_TBG.unbind(0)
        self._weight_HG = weight_GH.detach().T

    def __call__(self, t: int, sent_BH: Tensor) -> Tensor:
        self._sent.append(sent_BH.detach())
        return torch.addmm(self._deferred[t], sent_BH, self._weight_HG)


class Site(NamedTuple):
    """What a site did in a sequence."""

    values_TBH: Tensor  # what the next matrix multiplies, zero at padding
    # what counts of it, zero at padding: the same, unless the site sends changes
    events_TBH: Tensor
    state: State  # after each utterance's last frame; empty after a ragged batch in training


class StepLayer(nn.Module):
    """A recurrent layer, given by its step over ``BN(W X)``."""

    num_drives: ClassVar[int]
    """Rows of W per neuron."""
    state_type: ClassVar[Any]
    """A named tuple of (B, H) tensors, the last of which is what the layer sends."""
    has_feedback: ClassVar[bool] = False
    """Whether a matrix ``recurrent_weight``, (G, H), multiplies what the layer sent before."""
    sends_changes: ClassVar[bool] = False
    """Whether only changes of what it sends are told, and count."""
    reads_events: bool = False
    """Whether most inputs are zero."""

    def __init__(self, num_inputs: int, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden_size = config.hidden_size
        self.input_map = uniform_linear(num_inputs, self.num_drives * config.hidden_size)
        self.norm = FrameBatchNorm(self.num_drives * config.hidden_size)
        if self.has_feedback:
            blocks = [torch.empty(config.hidden_size, config.hidden_size)] * self.num_drives
            gates = [nn.init.orthogonal_(block.clone()) for block in blocks]
            self.recurrent_weight = nn.Parameter(torch.cat(gates))

    def step(self, drive_BG: Tensor, recurrent_BG: Tensor | None, state: Any) -> Any:
        """One frame: the new state.

        Args:
            drive_BG: ``BN(W X_t)``.
            recurrent_BG: ``U`` times what the layer sent a frame ago; None without feedback.
        """
        raise NotImplementedError

    def constrain(self) -> None:
        """Put parameters back within their bounds after a training step; nothing to do at first."""

    def initial_state(self, batch_size: int, device: torch.device) -> Any:
        """The state before the first frame."""
        zero = torch.zeros(batch_size, self.hidden_size, device=device)
        return self.state_type(*[zero] * len(self.state_type._fields))

    def forward(
        self, below_TBF: Tensor, frames: ValidFrames, before: State | None, mask_BH: Tensor | None
    ) -> Site:
        """Advance the layer over a sequence; ``mask_BH`` is the dropout mask of what it sends."""
        below_NF = frames.pack(below_TBF)
        drive_NG = normalized_linear(below_NF, self.input_map, self.norm, self.reads_events)
        drive_TBG = frames.unpack(drive_NG).float()
        # A batch without padding never freezes a state; one in training has none to return.
        frozen = None if frames.is_full or self.training else ~frames.mask_TB1
        state = self.initial_state(frames.batch_size, below_TBF.device)
        if before is not None:
            state = self.state_type(*before)
        first = state[-1]
        feedback = _Feedback(self.recurrent_weight, drive_TBG) if self.has_feedback else None
        sent = []
        for t, drive_BG in enumerate(drive_TBG.unbind(0)):
            recurrent_BG = None if feedback is None else feedback(t, state[-1])
            after = self.step(drive_BG, recurrent_BG, state)
            if frozen is not None:
                pairs = zip(state, after, strict=True)
                after = self.state_type(*(torch.where(frozen[t], *pair) for pair in pairs))
            state = after
            sent.append(state[-1])
        values = torch.stack(sent) if sent else drive_TBG.new_zeros(0, *first.shape)
        events = values
        if self.sends_changes:
            events = torch.diff(values, dim=0, prepend=first.unsqueeze(0))
        if not frames.is_full:
            values, events = values * frames.mask_TB1, events * frames.mask_TB1
        if mask_BH is not None:
            values, events = values * mask_BH, events * mask_BH
        is_known = frames.is_full or not self.training
        return Site(values, events, tuple(state) if is_known else ())


class StepNetwork(SpeechNetwork):
    """A stack of step layers with the shared output layer; the input is dense features."""

    layer_type: ClassVar[type[StepLayer]]
    """The family's layer."""

    def __init__(self, config: ModelConfig, num_features: int, num_outputs: int) -> None:
        super().__init__(config, num_features, num_outputs)
        sizes = [num_features] + [config.hidden_size] * config.num_layers
        self.layers = nn.ModuleList(self.layer_type(size, config) for size in sizes[:-1])
        reads_events = config.is_event_based and not self.layer_type.sends_changes
        for layer in list(self.layers)[1:]:
            assert isinstance(layer, StepLayer)
            layer.reads_events = reads_events
        self.output = OutputLayer(config.hidden_size, num_outputs, reads_spikes=reads_events)

    def encode(self, x_TBF: Tensor, frames: ValidFrames, before: State | None) -> Site:
        """The input site: the features as they are, unless a family encodes them."""
        values = x_TBF if frames.is_full else torch.where(frames.mask_TB1, x_TBF, 0.0)
        return Site(values, values, ())

    def forward(
        self,
        x_TBF: Tensor,
        lengths_B: Tensor,
        state: tuple[tuple[Tensor, ...], ...] | None = None,
        dropout_masks: Sequence[Tensor] | None = None,
    ) -> NetworkOutput:
        """See ``SpeechNetwork.forward``; ``state`` holds the input site's, then each layer's."""
        frames = ValidFrames(lengths_B, x_TBF.shape[0])
        sites = [self.encode(x_TBF, frames, None if state is None else state[0])]
        for number, layer in enumerate(self.layers):
            before = None if state is None else state[number + 1]
            mask_BH = None if dropout_masks is None else dropout_masks[number]
            sites.append(layer(sites[-1].values_TBH, frames, before, mask_BH))
        scores = self.output(sites[-1].values_TBH, frames)
        return NetworkOutput(
            scores, tuple(site.state for site in sites), tuple(site.events_TBH for site in sites)
        )

    @torch.no_grad()
    def after_step(self) -> None:
        """Put the layers' parameters back within their bounds."""
        for layer in self.layers:
            assert isinstance(layer, StepLayer)
            layer.constrain()
