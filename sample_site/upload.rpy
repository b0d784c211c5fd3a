"""A file upload.

Large files go to a temporary file on disk, not into memory, and are deleted after the response. To
keep one: request.file("upload").save("uploads").
"""

import hashlib

from layout import page
from rpyserve import Resource, html

FORM = """<form method="post" enctype="multipart/form-data">
<label>File <input type="file" name="upload" required></label>
<label>Note <input name="note"></label>
<button>Upload</button>
</form>
"""

RESULT = """<p class="big">{name}: {size} bytes</p>
<p>SHA-256 {digest}</p>
<p>{note}</p>
"""


class UploadPage(Resource):
    def render_GET(self, request):
        return page("File upload", html(FORM), __file__)

    def render_POST(self, request):
        upload = request.file("upload")
        digest = hashlib.file_digest(upload.file, "sha256").hexdigest()
        note = request.field("note", "")
        result = html(RESULT, name=upload.filename, size=upload.size, digest=digest, note=note)
        return page("File upload", result, __file__)


resource = UploadPage()
