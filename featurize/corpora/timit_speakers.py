"""TIMIT's standard speaker lists: the 24-speaker core test set and the 50-speaker dev set.

The core test set is in the corpus's own documentation; the dev list is the one of Halberstadt
(1998) that the field, Kaldi's recipe among it, uses. Both come from the corpus's TEST folder and
share no speaker.
"""

_CORE_TEST_NAMES = """
    MDAB0 MWBT0 FELC0 MTAS1 MWEW0 FPAS0 MJMP0 MLNT0 FPKT0 MLLL0 MTLS0 FJLM0 MBPM0 MKLT0 FNLP0
    MCMJ0 MJDH0 FMGD0 MGRT0 MNJM0 FDHC0 MJLN0 MPAM0 FMLD0
"""
CORE_TEST_SPEAKERS: tuple[str, ...] = tuple(_CORE_TEST_NAMES.split())

_DEV_NAMES = """
    FAKS0 FDAC1 FJEM0 MGWT0 MJAR0 MMDB1 MMDM2 MPDF0 FCMH0 FKMS0 MBDG0 MBWM0 MCSH0 FADG0 FDMS0
    FEDW0 MGJF0 MGLB0 MRTK0 MTAA0 MTDT0 MTHC0 MWJG0 FNMR0 FREW0 FSEM0 MBNS0 MMJR0 MDLS0 MDLF0
    MDVC0 MERS0 FMAH0 FDRW0 MRCS0 MRJM4 FCAL1 MMWH0 FJSJ0 MAJC0 MJSW0 MREB0 FGJD0 FJMG0 MROA0
    MTEB0 MJFC0 MRJR0 FMML0 MRWS1
"""
DEV_SPEAKERS: tuple[str, ...] = tuple(_DEV_NAMES.split())
