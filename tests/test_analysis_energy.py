"""Operations of layers small enough to count on paper."""

import pytest
import torch

from eisnn_zoo.analysis.energy import Operations, Shape, count_layer, operations, totals
from eisnn_zoo.ei_init import initialize
from eisnn_zoo.inference.folding import fold
from eisnn_zoo.networks import build


def test_energy_of_one_of_each():
    assert Operations(1, 1, 1, 1, 1).microjoules == pytest.approx((4.6 + 0.9 + 3.7 + 0.9 + 26.3) * 1e-6)
    assert Operations(1, 2, 3, 4, 5) + Operations(1) == Operations(2, 2, 3, 4, 5)


def test_a_matrix_by_hand():
    # 3 inputs, 4 + 1 cells, T = 2, one image; 3 spikes in, 5 out
    x = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    ops = count_layer(Shape(3, 4, 1), x, positions=1, steps_in=2, time_steps=2, spikes=5)
    assert ops["ei"] == Operations(macs=2 * 4 * 2 + 8, acs=5 * 3, multiplications=4 * 2 + 2, additions=2 * 8 + 8 + 5,
                                   divisions=8)
    assert ops["folded"] == Operations(macs=4 * 2 + 8, acs=5 * 3, additions=8 + 8 + 5, divisions=8)
    assert ops["bn"] == Operations(macs=8, acs=4 * 3, additions=8 + 8 + 5)
    assert ops["ann"] == Operations(macs=4 * 3, additions=8)


def test_a_convolution_by_hand():
    # 3x3, padding 1, on a 3x3 map: the centre reaches 9 outputs, a corner 4; all 9 inputs together 25 + 4 * 6 = 49 synapses
    shape = Shape(1, 2, 1, kernel=3, padding=1)
    x = torch.zeros(2, 1, 3, 3)
    x[0, 0, 1, 1] = x[1, 0, 0, 0] = 1
    ops = count_layer(shape, x, positions=9, steps_in=1, time_steps=1, spikes=0)  # two images
    assert ops["bn"].acs == 2 * (9 + 4) / 2
    assert ops["ei"].acs == 3 * (9 + 4) / 2
    assert ops["ann"].macs == 2 * 49
    assert ops["ei"].divisions == 18
    strided = count_layer(Shape(1, 1, 0, kernel=3, stride=2, padding=1), x, 4, 1, 1, 0)
    assert strided["ann"].macs == 4 * 4  # each of the 4 outputs sits on a corner
    assert set(strided) == {"bn", "ann"}


def test_pixels_cost_multiplications_once():
    x = torch.full((1, 3), 0.3)
    ops = count_layer(Shape(3, 4, 1), x, positions=1, steps_in=1, time_steps=4, spikes=0, worth=None)
    assert ops["folded"] == Operations(macs=5 * 3 + 4 + 16, additions=4 + 16, divisions=4)
    assert ops["ann"].macs == 12


def test_a_pooled_spike_counts_as_one_whatever_its_neighbours_do():
    for spikes in (1, 2, 4):
        ops = count_layer(Shape(1, 4, 1), torch.full((1, 1), spikes / 4), 1, 1, 1, 0, worth=4)
        assert ops["ei"].acs == 5 * spikes
    model = build("ei_vgg8").eval()
    model.mark_initialised()
    for layer in (layer for stage in model.stages for layer in stage.layers):
        layer.current.b_e.data.fill_(100.0)  # every cell fires at every step
    rows = {(r["layer"], r["variant"]): r for r in operations(model, [torch.rand(2, 3, 32, 32)])}
    assert rows["stages.1.layers.0", "bn"]["acs"] == 128 * 4 * 4 * 64 * (3 * 16 - 2) ** 2, "T, pooled, inputs, taps on a map of 16 x 16"
    assert rows["head", "folded"]["acs"] == 10 * 4 * 4 * 512


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_images_are_pixels(value):
    x = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    model = build("ei_mlp2")
    initialize(model, x, seed=0)
    for batches in [x, torch.full_like(x, value)], [x.round()]:
        (row,) = (r for r in operations(model, batches) if (r["layer"], r["variant"]) == ("stages.0.layers.0", "ann"))
        (ei,) = (r for r in operations(model, batches) if (r["layer"], r["variant"]) == ("stages.0.layers.0", "bn"))
        assert ei["input"] == "pixels" and ei["acs"] == 0 and row["macs"] == 784 * 500


def test_the_output_layer_does_not_divide():
    ops = count_layer(Shape(3, 4, 1, divides=False), torch.ones(1, 3), 1, 1, 1, None)
    assert ops["ei"] == Operations(macs=4, acs=5 * 3, additions=4)
    assert ops["folded"] == Operations(acs=4 * 3)


def test_a_whole_network():
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = build("ei_vgg8")
    initialize(model, x, seed=0)
    rows = operations(model, [x[:2], x[2:]])
    assert {r["layer"] for r in rows} == {*(f"stages.{i}.layers.0" for i in range(5)), "head"}
    assert {r["layer"]: r["input"] for r in rows} == {"stages.0.layers.0": "pixels", "head": "spikes",
                                                      **{f"stages.{i}.layers.0": "spikes" for i in range(1, 5)}}
    ann = next(r for r in rows if r["layer"] == "stages.1.layers.0" and r["variant"] == "ann")
    assert ann["macs"] == 64 * 128 * (16 * 3 - 2) ** 2  # 16 rows of 3 taps, less one at either end
    whole = {r["variant"]: r for r in totals(rows)}
    assert set(whole) == {"ei", "folded", "bn", "ann"}
    assert whole["ei"]["microjoules"] > whole["folded"]["microjoules"] > whole["bn"]["microjoules"]
    with pytest.raises(TypeError, match="as it was trained"):
        operations(fold(model), [x])
    baseline = totals(operations(build("bn_vgg8"), [x]))
    assert [r["variant"] for r in baseline] == ["bn", "ann"]
    assert baseline[1]["macs"] == whole["ann"]["macs"]


def test_what_reaches_the_output_layer_is_spikes_whatever_the_side_of_its_map():
    x = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))  # maps of 3 x 3 in the end, means of 9
    model = build("ei_resnet18", time_steps=1)
    initialize(model, x, seed=0)
    head = next(r for r in operations(model, [x]) if (r["layer"], r["variant"]) == ("head", "folded"))
    with torch.no_grad():
        spikes = model.eval().forward_steps(x).sum().item()
    assert (head["input"], head["macs"], head["acs"]) == ("spikes", 0, pytest.approx(10 * spikes / 2)) and spikes > 0
