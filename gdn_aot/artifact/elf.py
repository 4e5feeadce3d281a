"""temporary"""
import struct
from types import SimpleNamespace
def describe(cubin):
    (flags,)=struct.unpack_from("<I",cubin,48)
    shoff,=struct.unpack_from("<Q",cubin,40); esz,num,stri=struct.unpack_from("<HHH",cubin,58)
    secs=[struct.unpack_from("<IIQQQQIIQQ",cubin,shoff+i*esz) for i in range(num)]
    so=secs[stri][4]; regs=0
    for s in secs:
        n=cubin[so+s[0]:cubin.index(b"\0",so+s[0])]
        if n.startswith(b".text."): regs=s[7]>>24
    return SimpleNamespace(arch=0,registers=regs,local=0)
