"""The losses that are methods as they are, each with the name of its method and its default head."""

from frossl.losses import barlow_twins, dcl, empssl, frossl, ivne, mmcr, ntxent, supcon, vicreg
from frossl.methods.of_loss import add_loss

_DEEP = "1024-bn-relu-1024-bn-relu-1024"
_EIGENVALUES = {"float64": True, "eigenvalues": True}

add_loss("barlow", barlow_twins, _DEEP, "paper: 8192-bn-relu-8192-bn-relu-8192", scale=0.1)
add_loss("dcl", dcl, "1024-relu-128", "paper: 2048-relu-128")
add_loss("empssl", empssl, "1024-bn-relu-512", "public code: 4096-bn-relu-512")
add_loss("frossl", frossl, "1024-bn-relu-1024", "paper: 2048-bn-relu-2048-bn-relu-1024", invariance_weight=None)
add_loss("ivne", ivne, _DEEP, "STL-10: 2048-bn-relu-2048-bn-relu-1024", **_EIGENVALUES)
add_loss("mmcr", mmcr, "1024-bn-relu-1024-bn-relu-512", "STL-10: 2048-bn-relu-2048-bn-relu-512", **_EIGENVALUES)
add_loss("simclr", ntxent, "1024-relu-128", "paper: 2048-relu-128")
add_loss("supcon", supcon, "1024-relu-128", "paper: 2048-relu-128")
add_loss("vicreg", vicreg, _DEEP, "paper: 8192-bn-relu-8192-bn-relu-8192")
