"""Files that are there whole or not at all: the door to the file system, atomic writing, checked records."""

from featx.files.atomic import whole_file, whole_folder, write_whole
from featx.files.disk import Disk

__all__ = ["Disk", "whole_file", "whole_folder", "write_whole"]
