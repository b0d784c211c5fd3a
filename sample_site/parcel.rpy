"""A form with a file. However large it is, it goes to disk, not through memory, and is gone after the answer.

To keep it: request.file("parcel").save("uploads").
"""

import hashlib

from rpyserve import Resource, html
from tour import page

FORM = """<form method="post" enctype="multipart/form-data">
<label>A file <input type="file" name="parcel" required></label>
<label>A note <input name="note"></label>
<button>Weigh it</button>
</form>
"""

RECEIPT = """<p class="big">{name}: {size} bytes</p>
<p>SHA-256 {digest}</p>
<p>{note}</p>
"""


class Parcel(Resource):
    def render_GET(self, request):
        return page("Weigh a parcel", html(FORM), __file__)

    def render_POST(self, request):
        upload = request.file("parcel")
        digest = hashlib.file_digest(upload.file, "sha256").hexdigest()
        receipt = html(RECEIPT, name=upload.filename, size=upload.size, digest=digest, note=request.field("note", ""))
        return page("Weigh a parcel", receipt, __file__)


resource = Parcel()
