"""Content types by the ending of a file name: settled here, since the system's tables differ."""

from __future__ import annotations

# A type and its endings. Where programs disagree, what browsers act upon (WHATWG), then what IANA registered.
_TABLE = """
application/atom+xml atom
application/cbor cbor
application/dash+xml mpd
application/dicom dcm
application/epub+zip epub
application/geo+json geojson
application/gpx+xml gpx
application/gzip gz tgz
application/java-archive jar
application/json json map
application/ld+json jsonld
application/manifest+json webmanifest
application/msword doc dot
application/octet-stream bin deb dll dmg exe img iso msi o pkg rpm so
application/n-quads nq
application/n-triples nt
application/ogg ogx
application/pdf pdf
application/pgp-encrypted pgp
application/pgp-signature asc sig
application/pkcs8 p8
application/postscript ai eps ps
application/rdf+xml owl rdf
application/rss+xml rss
application/rtf rtf
application/sql sql
application/trig trig
application/vnd.amazon.ebook azw azw3
application/vnd.android.package-archive apk
application/vnd.apache.parquet parquet
application/vnd.apple.installer+xml mpkg
application/vnd.apple.mpegurl m3u8
application/vnd.comicbook+zip cbz
application/vnd.comicbook-rar cbr
application/vnd.debian.binary-package udeb
application/vnd.google-earth.kml+xml kml
application/vnd.google-earth.kmz kmz
application/vnd.ipfs.ipns-record ipns-record
application/vnd.ipld.car car
application/vnd.ipld.dag-cbor dag-cbor
application/vnd.ipld.dag-json dag-json
application/vnd.ms-cab-compressed cab
application/vnd.ms-excel xls xlt
application/vnd.ms-fontobject eot
application/vnd.ms-powerpoint pot pps ppt
application/vnd.oasis.opendocument.graphics odg
application/vnd.oasis.opendocument.presentation odp
application/vnd.oasis.opendocument.spreadsheet ods
application/vnd.oasis.opendocument.text odt
application/vnd.openxmlformats-officedocument.presentationml.presentation pptx
application/vnd.openxmlformats-officedocument.spreadsheetml.sheet xlsx
application/vnd.openxmlformats-officedocument.wordprocessingml.document docx
application/vnd.rar rar
application/vnd.sqlite3 sqlite sqlite3
application/vnd.visio vsd
application/wasm wasm
application/x-7z-compressed 7z
application/x-bittorrent torrent
application/x-bzip2 bz2 tbz2
application/x-chrome-extension crx
application/x-cpio cpio
application/x-dvi dvi
application/x-hdf5 h5 hdf5
application/x-ipynb+json ipynb
application/x-lzip lz
application/x-lzma lzma
application/x-mobipocket-ebook mobi prc
application/x-ndjson jsonl ndjson
application/x-netcdf cdf nc
application/x-pem-file pem
application/x-pkcs12 p12 pfx
application/x-shockwave-flash swf
application/x-tar tar
application/x-x509-ca-cert crt der
application/x-xpinstall xpi
application/x-xz txz xz
application/xhtml+xml xhtml xht
application/xml-dtd dtd
application/xslt+xml xsl xslt
application/yaml yaml yml
application/zip zip
application/zstd tzst zst
audio/aac aac adts
audio/aiff aif aifc aiff
audio/amr amr
audio/basic au snd
audio/flac flac
audio/x-matroska mka
audio/midi kar mid midi
audio/mp4 f4a m4a m4b
audio/mpeg mp2 mp3 mpga
audio/mpegurl m3u
audio/ogg oga ogg opus spx
audio/wav wav
audio/webm weba
audio/x-mod mod
audio/x-ms-wma wma
font/collection ttc
font/otf otf
font/ttf ttf
font/woff woff
font/woff2 woff2
image/aces exr
image/apng apng
image/avif avif avifs
image/bmp bmp dib
image/gif gif
image/heic heic
image/heif heif
image/jp2 jp2
image/jpeg jfif jpe jpeg jpg pjp pjpeg
image/jxl jxl
image/ktx2 ktx2
image/png png
image/svg+xml svg
image/tiff tif tiff
image/vnd.adobe.photoshop psd
image/vnd.djvu djv djvu
image/vnd.radiance hdr
image/webp webp
image/x-canon-cr2 cr2
image/x-icon cur ico
image/x-portable-anymap pnm
image/x-portable-bitmap pbm
image/x-portable-graymap pgm
image/x-portable-pixmap ppm
image/x-tga tga
image/x-xbitmap xbm
message/rfc822 eml mht mhtml
model/3mf 3mf
model/gltf+json gltf
model/gltf-binary glb
model/mtl mtl
model/obj obj
model/step step stp
model/stl stl
model/vnd.usdz+zip usdz
text/cache-manifest appcache
text/calendar ics
text/css css
text/csv csv
text/html htm html shtml
text/javascript cjs js mjs
text/markdown markdown md mkd
text/n3 n3
text/plain bat c cc cfg cmake cmd conf cpp cs cxx diff env go gradle h hh hpp ini java
text/plain kt list log lua m4 mk patch php pl pro properties r rb rs rst scala
text/plain srt svelte swift tex text toml tsx txt vue zig
text/tab-separated-values tsv
text/troff man roff
text/turtle ttl
text/vcard vcard vcf
text/vtt vtt
text/x-python py pyw
text/x-sass sass scss
text/x-sh bash sh zsh
text/xml xml xsd
video/3gpp 3gp 3gpp
video/3gpp2 3g2
video/x-matroska mkv
video/mp2t m2ts mts
video/mp4 f4v m4v mp4 mp4v mpg4
video/mpeg m1v m2v mpe mpeg mpg
video/ogg ogv
video/quicktime mov qt
video/webm webm
video/x-flv flv
video/x-ms-asf asf
video/x-ms-wmv wmv
video/x-msvideo avi
"""


def _read(table: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in table.split("\n"):
        kind, _, endings = line.partition(" ")
        found.update((ending, kind) for ending in endings.split())
    return found


BY_ENDING = _read(_TABLE)
