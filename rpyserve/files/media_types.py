"""Which media type a file has, by a table of our own.

The machine is never asked: on Windows the registry calls ``.js`` text/plain, and what is installed
must not change a site. Text is UTF-8 and its media type says so. Nothing here opens a file.
"""

from __future__ import annotations

import codecs
from typing import Final

# How many bytes of a file without an extension are enough to recognise text.
SAMPLE: Final = 512

# The media type of a file about which nothing is known.
UNKNOWN: Final = "application/octet-stream"

_BY_TYPE: Final = {
    "text/calendar": "ics",
    "text/css": "css",
    "text/csv": "csv",
    "text/html": "html htm",
    "text/javascript": "js mjs cjs",
    "text/markdown": "md markdown",
    "text/plain": "txt text ini cfg conf diff patch rst toml c h cpp hpp rs go java rb sh bat ps1 "
    "jsx ts tsx vue scss sass less tex srt",
    "text/tab-separated-values": "tsv",
    "text/vtt": "vtt",
    "text/xml": "xml xsl xsd",
    "text/yaml": "yaml yml",
    "application/atom+xml": "atom",
    "application/epub+zip": "epub",
    "application/geo+json": "geojson",
    "application/gzip": "gz tgz",
    "application/json": "json map",
    "application/jsonl": "jsonl ndjson",
    "application/ld+json": "jsonld",
    "application/manifest+json": "webmanifest",
    "application/msword": "doc",
    "application/pdf": "pdf",
    "application/rss+xml": "rss",
    "application/rtf": "rtf",
    "application/vnd.ms-excel": "xls",
    "application/vnd.ms-powerpoint": "ppt",
    "application/vnd.oasis.opendocument.presentation": "odp",
    "application/vnd.oasis.opendocument.spreadsheet": "ods",
    "application/vnd.oasis.opendocument.text": "odt",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/wasm": "wasm",
    "application/x-7z-compressed": "7z",
    "application/x-bzip2": "bz2",
    "application/x-tar": "tar",
    "application/x-xz": "xz",
    "application/xhtml+xml": "xhtml",
    "application/zip": "zip whl",
    "application/zstd": "zst",
    "audio/aac": "aac",
    "audio/flac": "flac",
    "audio/midi": "mid midi",
    "audio/mp4": "m4a",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg oga opus",
    "audio/wav": "wav",
    "audio/webm": "weba",
    "font/collection": "ttc",
    "font/otf": "otf",
    "font/ttf": "ttf",
    "font/woff": "woff",
    "font/woff2": "woff2",
    "image/apng": "apng",
    "image/avif": "avif",
    "image/bmp": "bmp",
    "image/gif": "gif",
    "image/heic": "heic",
    "image/jpeg": "jpg jpeg jfif",
    "image/jxl": "jxl",
    "image/png": "png",
    "image/svg+xml": "svg",
    "image/tiff": "tif tiff",
    "image/webp": "webp",
    "image/x-icon": "ico cur",
    "model/gltf+json": "gltf",
    "model/gltf-binary": "glb",
    "video/mp2t": "m2ts",
    "video/mp4": "mp4 m4v",
    "video/mpeg": "mpeg mpg",
    "video/ogg": "ogv",
    "video/quicktime": "mov",
    "video/webm": "webm",
    "video/x-matroska": "mkv",
    "video/x-msvideo": "avi",
}
_BY_EXTENSION: Final = {
    extension: media_type
    for media_type, extensions in _BY_TYPE.items()
    for extension in extensions.split()
}


def media_type(name: str, start: bytes | None = None) -> str:
    """Return the ``Content-Type`` for a file called *name*.

    Args:
        name: the file's name.
        start: its first `SAMPLE` bytes. If they are given, a file without an extension is plain
            text if they are UTF-8 without control characters. Unknown extensions are not guessed.
    """
    stem, dot, extension = name.lower().rpartition(".")
    if dot and stem:
        found = _BY_EXTENSION.get(extension, UNKNOWN)
    elif start is not None and _is_text(start):
        found = "text/plain"
    else:
        found = UNKNOWN
    return f"{found}; charset=utf-8" if found.startswith("text/") else found


def _is_text(start: bytes) -> bool:
    try:
        # An incremental decoder, because the last character may be cut.
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return all(char >= " " or char in "\t\n\r\f\x1b" for char in text)
