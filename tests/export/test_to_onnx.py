import onnxruntime as ort
import pytest
import torch

from export.to_onnx import export_onnx
from serving import model_config
from training.networks.mediround import TextProjection


@torch.no_grad()
def test_every_number_of_items_stays_free(tiny_profile, tmp_path):
    network, file = TextProjection(tiny_profile), tmp_path / "model.onnx"
    width = tiny_profile.mistral.hidden_size
    config = model_config.read("mediround_text_projection")
    export_onnx(network, config, {"hidden_states": torch.zeros(2, 2, width)}, file)
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for requests, turns in ((1, 1), (1, 5), (3, 2)):
        states = torch.randn(requests, turns, width)
        (found,) = session.run(None, {"hidden_states": states.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), network(states), rtol=1e-4, atol=1e-5)
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.InvalidArgument):
        session.run(None, {"hidden_states": torch.zeros(1, 1, width // 2).numpy()})
