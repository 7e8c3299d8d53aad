"""Files that are there whole or not at all: the door to the file system, atomic writing, checked records, sizes."""

from featx.files.atomic import whole_file, whole_folder, write_whole
from featx.files.disk import Disk
from featx.files.sizes import parse_bytes

__all__ = ["Disk", "parse_bytes", "whole_file", "whole_folder", "write_whole"]
