"""Sets what a shell cannot on the ntfs-3g mount in the current directory: attributes, DOS names, links and WOF files."""
import ctypes, hashlib, os, struct

attrib = lambda p: struct.unpack('<I', os.getxattr(p, 'system.ntfs_attrib'))[0]
os.setxattr('comp', 'system.ntfs_attrib', struct.pack('<I', attrib('comp') | 0x800))  # FILE_ATTRIBUTE_COMPRESSED
os.setxattr('big/a file with a long name 7.dat', 'system.ntfs_dos_name', b'AFILEW~7.DAT')


def noise(n, seed):
    """n bytes that no compressor shrinks."""
    out = b''
    while len(out) < n:
        out += hashlib.sha256(b'%d %d' % (seed, len(out))).digest()
    return out[:n]


def text(n):
    return b''.join(b'line %d\n' % (i // 100) for i in range(n))


with open('comp/text', 'wb') as f:
    f.write(text(9000))
with open('comp/mixed', 'wb') as f:
    f.write(text(1000) + noise(9000, 1) + text(4000) + bytes(200000) + noise(7, 2))
with open('comp/tiny', 'wb') as f:
    f.write(b'tiny')


def reparse(path, tag, data):
    os.setxattr(path, 'system.ntfs_reparse_data', struct.pack('<IHH', tag, len(data), 0) + data)


def names(substitute, shown, flags=b''):
    s, p = substitute.encode('utf-16le'), shown.encode('utf-16le')
    return struct.pack('<HHHH', 0, len(s), len(s) + 2, len(p)) + flags + s + b'\0\0' + p + b'\0\0'


os.mkdir('junction')
reparse('junction', 0xA0000003, names('\\??\\C:\\Windows', 'C:\\Windows'))
open('symlink', 'w').close()
reparse('symlink', 0xA000000C, names('Windows\\System32', 'Windows\\System32', struct.pack('<I', 1)))
open('dedup', 'w').close()
reparse('dedup', 0x80000013, bytes(16))

lib = ctypes.CDLL('libwim.so.15')
lib.wimlib_create_compressor.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_uint, ctypes.POINTER(ctypes.c_void_p)]
lib.wimlib_compress.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p]
lib.wimlib_compress.restype = ctypes.c_size_t
lib.wimlib_global_init(0)
# Calls (0xE8) with targets around all limits, which LZX translates.
calls = b''.join(b'\x90\xe8' + struct.pack('<i', t) for t in
                 [0, 1, -1, 5, -5, 11999999, 12000000, 12000001, -40, -4000, -100000, 2**31 - 1, -2**31] + [12000000 - 9 * i for i in range(60)] + [-7 * i for i in range(60)])
# Records whose distances are multiples of 24: LZX tells such offsets in its aligned blocks.
records = b''.join(noise(24, 100 + b % 80) for b in noise(1300, 9))
data = calls + text(4000) + noise(5000, 3) + bytes(30000) + text(500) + calls + records
sums = open('../wof.sums', 'w')
os.mkdir('wof')
for name, kind, chunk, code in ('xpress4k', 1, 4096, 0), ('lzx', 2, 32768, 1), ('xpress8k', 1, 8192, 2), ('xpress16k', 1, 16384, 3):
    c = ctypes.c_void_p()
    assert lib.wimlib_create_compressor(kind, chunk, 0, ctypes.byref(c)) == 0
    parts = []
    for i in range(0, len(data), chunk):
        b = data[i:i + chunk]
        out = ctypes.create_string_buffer(len(b))
        n = lib.wimlib_compress(b, len(b), out, len(b) - 1, c)
        parts.append(out.raw[:n] if n else b)
    table, end = b'', 0
    for p in parts[:-1]:
        end += len(p)
        table += struct.pack('<I', end)
    path = 'wof/' + name
    open(path, 'w').close()
    os.truncate(path, len(data))
    with open(path + ':WofCompressedData', 'wb') as f:
        f.write(table + b''.join(parts))
    reparse(path, 0x80000017, struct.pack('<IIII', 1, 2, 1, code))
    sums.write('%s  ./%s\n' % (hashlib.sha256(data).hexdigest(), path))
