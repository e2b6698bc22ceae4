"""The page of a running sweep: it follows the folder, and answers this machine alone."""

import http.client
import threading

import numpy as np
import pytest
from browser_for_tests import browser
from results_for_tests import make_result

import jaxmnist as jm
from jaxmnist.studies import watch


@pytest.fixture
def server(tmp_path):
    with watch.make_server(tmp_path / "out") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.02))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server, path, host=None):
    """Returns status and text of an answer."""
    connection = http.client.HTTPConnection(*server.server_address)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def unfinished():
    """Returns a result some of whose runs have not ended."""
    finished = np.arange(3)[:, None, None] + np.zeros((3, 3, 3)) < 2
    names = ("validation_accuracy", "validation_loss", "test_accuracy", "test_loss")
    result = make_result()
    dims = result["validation_loss"].dims
    result = result.assign({name: result[name].where(finished) for name in names})
    return result.assign(finished=(dims, finished))


def test_the_page_follows_the_folder(server, tmp_path):
    assert server.server_address[0] == "127.0.0.1"
    assert get(server, "/version") == (200, "none")
    assert "there is no " in get(server, "/page")[1]
    jm.save(unfinished(), tmp_path / "out")
    first = get(server, "/version")[1]
    assert first != "none" and "Content-Security-Policy" in get(server, "/page")[1]
    jm.save(make_result(), tmp_path / "out")
    assert get(server, "/version")[1] != first
    assert "<iframe" in get(server, "/")[1] and get(server, "/page?1")[0] == 200


def test_other_names_and_paths_get_nothing(server, tmp_path):
    jm.save(make_result(), tmp_path / "out")
    port = server.server_address[1]
    assert get(server, "/version", f"localhost:{port}")[0] == 200
    for path, host in (("/version", f"elsewhere.example:{port}"), ("/results.nc", None), ("/../out/results.nc", None)):
        assert get(server, path, host)[0] == 404


@pytest.mark.slow
def test_new_results_appear_and_the_view_stays(server, tmp_path):
    jm.save(unfinished(), tmp_path / "out")
    with browser(tmp_path / "profile") as page:
        page.driver.get(f"http://127.0.0.1:{server.server_address[1]}/")
        page.wait("return document.querySelector('iframe').contentWindow.location.search")
        page.driver.switch_to.frame(0)
        page.wait("return document.documentElement.dataset.ready")
        before = page.run("return location.search")
        assert "18 runs of 6 settings" in page.text("subtitle")
        page.run("choose(3)")
        page.set("quantity", 1, "change")
        chosen = page.run("return settingWords(state.chosen)")
        page.wait("return location.hash.includes('chosen')")
        jm.save(make_result(), tmp_path / "out")
        page.driver.switch_to.default_content()
        page.wait(f"return document.querySelector('iframe').contentWindow.location.search !== '{before}'")
        page.driver.switch_to.frame(0)
        page.wait("return document.documentElement?.dataset.ready")
        assert "27 runs of 9 settings" in page.text("subtitle")
        assert page.run("return [settingWords(state.chosen), state.quantity]") == [chosen, 1]
