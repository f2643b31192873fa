"""The live page while somebody moves two factors, one after the other, as a GIF for the README. python -m experiments.film

Opens outputs/reference/live.html in a headless Chromium, moves its sliders, and writes outputs/reference/live.gif, a minute's work.
"""

import io

from PIL import Image

from experiments.page import TARGET
from tests.browser import page

SIZE, WIDTH, COLOURS = {"width": 980, "height": 600}, 680, 64
SET = """([group, at, share]) => {
  const input = document.querySelectorAll(`#${group} input[type=range]`)[at];
  input.value = Number(input.min) + share * (Number(input.max) - Number(input.min));
  input.dispatchEvent(new Event("input", { bubbles: true }));
  input.scrollIntoView({ block: "nearest" });
}"""
THERE_AND_BACK = [0.5, 0.65, 0.8, 0.92, 0.8, 0.65, 0.5, 0.35, 0.2, 0.08, 0.2, 0.35]


def main() -> None:
    frames = []
    with page() as tab:
        tab.set_viewport_size(SIZE)
        tab.goto(TARGET.as_uri(), wait_until="load")
        tab.wait_for_function("window.lpdirs", timeout=120_000)
        tab.evaluate("stop()")
        for group, at in (("factors", 1), ("factors", 0)):
            tab.evaluate("document.getElementById('reset').click()")
            for share in THERE_AND_BACK:
                tab.evaluate(SET, [group, at, share])
                tab.wait_for_function("!drawing && Number(document.body.dataset.drawn) === wanted", timeout=120_000)
                picture = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
                picture.thumbnail((WIDTH, WIDTH))
                frames.append(picture.quantize(COLOURS, dither=Image.Dither.NONE))
    frames[0].save(TARGET.with_suffix(".gif"), save_all=True, append_images=frames[1:], duration=230, loop=0, optimize=True)
    print(f"{TARGET.with_suffix('.gif').name}: {len(frames)} frames, {TARGET.with_suffix('.gif').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
