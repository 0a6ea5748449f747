"""The reference's table of trace events is that of the declarations. To rewrite it:

python tests/trace/test_event_page.py && git diff docs/reference
"""

import re
from pathlib import Path

from swiommu.trace import Kind

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "trace_events.md"
TABLE = re.compile(r"(<!-- events -->\n\n).*?(\n\n<!-- end of events -->)", re.DOTALL)


def kernels(texts):
    """Since and until when any of an event's texts is printed."""
    firsts, lasts = {text.since for text in texts}, {text.until for text in texts}
    first = "" if "" in firsts else min(firsts, key=lambda version: [int(number) for number in version.split(".")])
    last = "" if "" in lasts else max(lasts, key=lambda version: [int(number) for number in version.split(".")])
    return f"{first} to {last}" if first and last else f"since {first}" if first else f"to {last}" if last else ""


def table():
    rows = ["| event | kernels | what happens | printed by | columns |", "|---|---|---|---|---|"]
    for kind in Kind:
        spec = kind.spec
        system = f"{spec.system}:" if spec.system else ""
        columns = ", ".join(f"`{column}`: {meaning}" for column, meaning in spec.columns.items())
        for event, texts in spec.texts.items():
            cells = (f"`{system}{event}`", kernels(texts), spec.doc, spec.where, columns)
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return re.sub(" +", " ", "\n".join(rows))


def rewritten(text):
    return TABLE.sub(lambda found: found[1] + table() + found[2], text)


def test_the_table_of_events_is_that_of_the_declarations():
    text = PAGE.read_text(encoding="utf-8")
    assert TABLE.search(text)
    assert text == rewritten(text)


def test_the_kernels_of_an_event_are_those_of_all_its_texts():
    assert kernels(Kind.CMA_START.spec.texts["cma_alloc_start"]) == "since 5.13"
    assert kernels(Kind.DMA_MAP.spec.texts["dma_map_page"]) == "6.12 to 6.17"
    assert kernels(Kind.DOMAIN_ATTACH.spec.texts["attach_device_to_domain"]) == ""


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE.name}")
