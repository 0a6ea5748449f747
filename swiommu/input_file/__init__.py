"""Files that people and recorders write beside a trace: TOML and JSON, read into attrs classes by cattrs.

A file is bounded in bytes, tables and depth, so that none can hang the program or fill the memory. What is wrong with
it is an `InputError` of one sentence with path, line and key: ``s.toml:3: layer.iommu.width is 65, not a number of bits
from 1 to 64``. A key is declared once, as a field made by `key`: its meaning, unit, range and default.
"""

from swiommu.input_file.keys import BadValue, ByteCount, HexNumber, key, shown
from swiommu.input_file.places import Where
from swiommu.input_file.reading import InputFile

__all__ = ["BadValue", "ByteCount", "HexNumber", "InputFile", "Where", "key", "shown"]
