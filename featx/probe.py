"""The probe: a few built-in images whose pixels and features a table carries, to catch what a key cannot see.

A key names weights and preprocessing; it cannot see a decoder, a library or a switch that computes other numbers
from the same names. So the pixels (exactly) and the features (within a tolerance) of these images are stored with a
table, measured again before rows are added or a model meets new images, and compared.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Protocol

import numpy as np

from featx.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from featx.recipe import Frame

_TOLERANCE = {"fp32": 1e-4}
_LOW_PRECISION_TOLERANCE = 2e-2


class _Runs(Protocol):
    """What the probe needs of an engine."""

    def run(self, pixels: np.ndarray) -> list[np.ndarray]: ...


def measure(prepare: Callable[[bytes, Frame], np.ndarray], engine: _Runs, frame: Frame) -> list[dict[str, np.ndarray]]:
    """Decode, fit and run the probe images.

    Parameters
    ----------
    prepare : callable
        `featx.images.prepare`: encoded bytes and a frame → uint8 pixels (h, w, 3).
    engine : Engine
    frame : Frame

    Returns
    -------
    list of dict
        For each recipe of the engine, ``"pixels"``: SHA-256 of each image's pixels, uint8 (n, 32), and
        ``"features"``: its row of each image, (n, …).
    """
    pixels = np.stack([prepare(data, frame) for data in PROBE.values()])
    hashes = np.stack([_sha256(image) for image in pixels])
    return [{"pixels": hashes, "features": rows} for rows in engine.run(pixels)]


def compare(stored: Mapping[str, np.ndarray], measured: Mapping[str, np.ndarray], precision: str) -> None:
    """Check that this machine computes what `stored` was computed with.

    Parameters
    ----------
    stored, measured : mapping
        ``"pixels"`` and ``"features"`` as `measure` gives them for one recipe.
    precision : {"fp32", "tf32", "bf16", "fp16"}
        As computed: sets the tolerance, 1e-4 relative L2 at fp32 and 2e-2 below it.

    Raises
    ------
    ProbeError
        If a pixel differs, or features differ past the tolerance.
    """
    before, now = np.asarray(stored["pixels"]), np.asarray(measured["pixels"])
    if not np.array_equal(before, now):
        other = [name for name, same in zip(PROBE, _rows_equal(before, now), strict=True) if not same]
        raise ProbeError(
            f"This machine makes other pixels of the probe images {', '.join(other)} than the table was made from: was "
            "Pillow updated? Type --refresh to compute the table again here."
        )
    allowed = tolerance(precision)
    apart = distance(np.asarray(stored["features"]), np.asarray(measured["features"]))
    if not apart <= allowed:
        raise ProbeError(
            f"This machine computes other features than those of the table: the probe images differ by {apart:.1e} "
            f"(relative L2; {allowed:.0e} is allowed at {precision}). Type --refresh to compute the table again here."
        )


def _sha256(image: np.ndarray) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(image.tobytes()).digest(), np.uint8)


def _rows_equal(before: np.ndarray, now: np.ndarray) -> Sequence[bool]:
    if before.shape != now.shape:
        return [False] * len(PROBE)
    return [bool(same) for same in (before == now).all(axis=1)]


def tolerance(precision: str) -> float:
    """Return the relative L2 distance of an image's features that engines and machines may differ by."""
    return _TOLERANCE.get(precision, _LOW_PRECISION_TOLERANCE)


def distance(before: np.ndarray, now: np.ndarray) -> float:
    """Return the largest relative L2 distance of one image's features; infinite for other shapes, nan for nan."""
    if before.shape != now.shape:
        return float("inf")
    before = before.reshape(len(before), -1).astype(np.float64)
    now = now.reshape(len(now), -1).astype(np.float64)
    norms = np.linalg.norm(before, axis=1)
    return float(np.max(np.linalg.norm(now - before, axis=1) / np.where(norms > 0, norms, 1)))


#: Name → encoded image: a PNG of fine detail, a JPEG with subsampled colour larger than most frames, a PNG with
#: transparency, a grey JPEG that its EXIF turns by 90°. ``tests/test_probe.py`` holds the code that drew them.
PROBE = {
    name: base64.b85decode(text)
    for name, text in {
        "waves": (
            "iBL{Q4GJ0x0000DNk~Le0000$0000m2m$~A04^!(NB{r>`AI}URCwCem}_(5HWY>*wX{v!?3PW^gb)Z`z}yTtNy&xHW&i)L(tZ%K"
            "<Vf-bNN1UOKD>H$?3s6t<TD_EhCy0d9EcBy14ak<<xsH#{CbcyK$-vzVO<Dm>7Uoncc1~k9T>g<zyCC>%4-4v{`enBc6z)4!U`Zw"
            "fFr>X8fod>{CH3A(K_6LBlvS4M0<KqfU*F8ZA*8DXG5$#W`zKM*P&grzL-^cjWY*K0BHgo3y#r9OIv;`;2+oV)0*|i6+3VYpTe9M"
            "?v|45^mv^BpB>J8W<@4DJo{pF%>e&coaUDmiMM*{F}PJY2TTBI0yG6pIDsZKB~3KK(msDsv%U$d^7{H6Xu_8|L^bPg>ebf|Z~|Z8"
            "q#C`-l_#*QQ~bISH3OXL4xGSgA>FcqjHGhq+GAFp1E1hb9U*A~oC(g*$c?xP_-Bqk4fyZsABx_y?H$+zfPeF}9mmVKTG^_+rgDJu"
            "aDa2orKLl}6>4rP)VyxQK00s?7tn%>LI!087m!w{dCo1X&4E^a4wwLP6QBhxK?{wvw4eq3fS=Vb0)D2S{Qf>VaH%_R=_3mG8A(~e"
            "L(y)90PVs6ZR-eKLOV~-acriAyKPt%?!G~L#|~WO?|=$$rMb4W%cOAku5kCo=sI)Yvu_TV0MZ2L2)fWwNG+fv=)fr8D{caQN3!<#"
            "WgX~-JJ5B$LRo-rm^i$(3~xOKxAyuORROM{16{aw82U`bBH-VLA9;i8tpoG|0eb2P=>R>8L4KK$1pFSX0{)B9g>xVZ{2qv$IdB0j"
            "L6qGAX#zxo2>K8~B#F=nBA5mIyMX`gz5fA6=v@aQ`08U4@NWYCli%N8fPNrAAHG6A&)9JkX~2IB_}{k(Fz^K!1UfL#9q7YAGqSYJ"
            "(r4ZWieES4Bj><S9U*A~3<WU^6;cbB3!`m+<@29mX#8*oVqXVh-w}#^cOcH+0Tm$jk@(CzpSkv!A9IOE&L!@{2!;^D$YPdXDsFw|"
            "lh6FVdw_AZuh3W>Ast{0W0-1TbK^J<zOvVisPn(jB>a0o%>fl);>>|bb_b*hFcD19NG7mUI`7|S+VWpyrg!VW)Hy=aKnMEy4oqPJ"
            "Q;S7@saQGAxA)G+53-pPV5T|%Q<%XF=2~RjInE5$juX5Ci4!1k0whj=#0ii%9Z0exqyr=lw~q7ZIIkP=k#peMnFDiS-2urI=8(W#"
            "FlWP!G+Ox&N?ZPmso&obS~y2&5xxVe0}I`OIV@lSsTLXcj`N&bZW~}(b_bTuC0^zOEUhD?0xTU?`Q_Rvs5%GIvJRwWb0GC~zz&eY"
            "5>ku*^2?|EGKDut`2qU|KV`bD>y!Wh002ovPDHLkV1f"
        ),
        "photo": (
            "|JeWF01!$>Nk#wx0RR9200961|JwjV01yid4h#wq4h;?x5fBp?C>j_R78o%jB^@X_Gd(;xGdMRuNL)@pL{~*OI8bd-S6^ahXlFi6"
            "ad~iLcwA*?WB=O#Lje&I5*QU2FB%#zV?sDWV`F1uV`F1uV`F1uV`F1uV`F1uV`F1uV`F1uV`F1uV`F1uV`F1uV`F1uV`F1uV`Klo"
            "01*fQAOQLU0U`hb5di}c0sq7R8vp<U0RaI40RR9100000000010s{sG1PA}b06h=^0RRC50R#sI0|f~I0000100IL95d{VkAu$so"
            "K~Z6GffPcKp~2B3GO;sKvclmsHB(e`f|8@~@&CjC8UX+T0|5a50000000000000970RjaE0RO}QED-<$00IF60|WsB1poj500001"
            "0s|2Q1tBpK6EY$}QDLzoLV<CSp~3L~+5ij#0RRFK0}%i}0OfHlF)75f#FW|7M2sy0kgP9kW@KSmBBHVkkQ0cmiv&cNh^t`Iu(Ygc"
            "156f$n$WT33f&24S*;5mP^Hk8g__W_5`^xAw5%+aJc`p3D2UPlu!&A0Dl(!)K@k#=!my+*0+7;%7MPUcT4GbNn3Az7;xQ}Y_QqyU"
            "mlDt^3qZIXn=>N{$pu9r<qVvO)<Fjnh=_&~SZP?Y3YaYmHKAk57P=D9vsxBBp-Z7H3pJr;B??^$X;@lTJfTaVT3A^|k$Pbf5s)T1"
            "k}4~rQW;Q4D+<9S3@tG!3rtFOF)}<$Oi5x|VpFlGk>XdxVpYZMjLe@XRuT%!fi>j}sF6CzDnp2h=#Y~VSh5b7mX(^&v84d21)*lP"
            "YaURg&@BrKLd;4Ox&@(OX;|`wE`e!ST3GTcOd?Sg0&H;;BBBOVNT@3!=?pCbkhBVR8f18un3BY=5}l1im5FJIP9>%#?Ttj0iB}L6"
            "aeHGkC(0EPDlQ2csR1~O=&<DyVj``A(y+9wX#q?Yg__W@<qKU2Xj|CW_Ir7{<1J(C+J5}cS@Zk9zZXNZ==&XzcQj1%9(($pwp^ZE"
            "d%l$~myaK1-I%<tql*`1-Tsa{ZPRzV!<`Mjd19QIJ{Z2wH^Te$do8=o#n#r+)5SS>=Pa@Kapn2ldeE>RJ0tk^Ftc@Bwed+D=9gtO"
            "jGs-r&pdeY!vhzeo6V!yZIAq2$NpIU*SNH;E0vl50CAgq?Ct!I2UoJYR|L}6*2h0%ml+?22lc)^ZprGHj*jaL^5@Gu98NxGH&ZC_"
            "%gnyuS3i+I+;JP8fz)>W=g@jwapTt0d))kwKg#oR$1F2(&leoActqhF^s61l({H-RySUNAP~i^o;&bQ2?48HdDSXhzKB-<ZPx~L8"
            "l^03B?6>o3Y&AYUi#O-w{s)iacpCd{ZLX`QucwxtXR{;E;(O1Hr;9vgUrRNxaxvy#Lm(>(LeM4$WehDbDa5qIy|I{*u`Mwv#I(ex"
            "V^JkyT4Ga)Xcx9M5-_WX3b?#5k@1s)E)5zZh?GP_2`nuu8bMP9p=P(!)4G1QQrvnyFAPr{^G^&<-{BW(R^NeKxh5smKE_*3rndWW"
            "j)sOj<oU0bC%yPxcTDKJex1gD+UuPE01-IgeaEx^0Nd=^ZFF`!d~`H1;}gw%@_p~d(QM4zs>}4xWO97op;^9}?LWwtg__W?r5Kk&"
            "T2>a7n3O4W3rsSNBJ{!{BA`rjBveF1q%zNQw9wvY`YpzpsfRr9`yZXCRu$7}?FEgev~hi3p=xyF(&^;t?bpXHJaG4O``&IP`c5Ux"
            "_1=Z(d)vL9AHwt0(>~|K_<v8AmbV+3>iRNy{GA^Mo9k*a`TU*+C8i}fmY9~7&VnSYO7SI$X^DGdQ6mdLq$>(`H8L=&3DOxO;)sic"
            "LxCnFv1Fw%S{7?U#*{BqZ?xKLZ?_oeXk*S#n)zaT--X=lwwik#rWzVS>Ylbi$9eX*!_YcuvDzBCxSwd%IbIRO{_l_H{+Fh<XD2_o"
            "UYYQYPpI=f+VoGw0?@FuEEz@}&@BrKO3X?Wx&@_SX=6yWFo{HD1+m0Th=>_cBA~8aA%&n)7MPUmG|2HSF)75g#J#bolaTBEA1$V~"
            "TdfQavu601pV_~&{+{c|#J@(>(9_&#<)y8Go}On8EyC~iIrRPJdwoZ}$BsF1!IAH_xO|UsdMnC0uA9jBXVG3)@O=1|fk;{e{>{me"
            "g<&A5q+(FX$em<d_+=7q84R`!D>b2GND5%Lq0n|eZt6Jq@#jZN*Uyu|_a9f;?&kAW?E5>lHr+1_+<4U1_40f?y`N4zeyvVUPj4S@"
            "EXwK}k82axm)P|dg__W|M5B$m640|+7GhAP(3X{&(y`=Ln3hoykOsmcA|it-Bve;Kq%f>03qY(IP{Pv^oJ&kfb~6%IC8i}fmYA2e"
            "H4;`O<MyAY`hA(Y)5o1nALiikasL2MKgRa4Dsaa<Tyw<B9F7q=5+*E<9jZh8Yj~|%`yZQyVQ;_MyFK={-5xN>G36CKkKx6UbdyS!"
            "(c0tHB-h+!M2Xiyk{m==M4o(>7L~Yp2}~B1g`s0g7rHdt>3yShrK8^N`b^9@<DNNqzd{Uf#K#Owam3&QfG#()I(ce!oH7%QEON=`"
            "-NzrPb}J#yt=gZ#%XNIa$fNLtv@F(zmXve%K(s6^D;`j#&@C+5V@SO)h=`~g9LW_C5#)wc5(>hwNka=vN<z~Tos3M664w%(OH51K"
            "8i^|syh&nOVpFlGk>XkfAy{76)XB>Bw{MOcy$y4L)y2gF+mE-OZ<u{A2)iEC=;f)>JHm0Lsg6%R?-TVdJh%8)>cYQARnx20fquIT"
            "h>6r_jwKNhR?j(USXx%%Wge;$(6d?=JfT~opzMy9dv&<h?|&u+9C7E%&-s5lr(2rrd;Zz~0B8BGjclG*e9!!U2OZSyzD0kJ;7dZy"
            "Xj+ntd!SlY7M47VQwWJgKwBI{$cTZJ5-JMlx<v(HNLpf3u=69tw8WMrrX@QWi5?}UB(W_qFKlWgc$R@kS_SQmOpGfj3d%+$9~WBD"
            "^!*=ohkLum9sYRd`Fwv%gTF!QU+%r%{T%-Q!r!0UT{-;?e$I!bKk3r_ghZ`GYA}vu%b2JeXPUGu)`hsKMJ|N2EY^jOC{pO?dm*if"
            "ues4jy`DJaKF$Y+{6*6(#&%<0(e;dQ?(^wz%MN++_WqY*wqG)Jn}3s#>YcN<`9QQR)|G`OH85$2jDR)~5fu~}Q6i$cERe#mkX96h"
            "lrXf!rxMc=os7hliD`*WC8j0qjYO4+X^BoHpi{B9k%eI(th_NOWkiYAK~g?Gv#XAeNZn<Sqo(8G?|cvIa93yAjc-NK^258&rOzBW"
            "=gZsrTwS@-r&!zlod-;vVsG-oOi67-Xf_KjWU}TmKq;PL(6d`LxT!#{foND-7GhAH(Z0)Z_Fe9dzc~h;V)uO0pA+!EL0j`xyMBSX"
            "H$5Xo<nL*ok03m_^8C1y=VR=w=X$(tPDTEQqO`MGWMt<lj!_X%HaU_iE2GH_s3aAIV6ui5n3RR4B|8r?Rwbq-IF^`{>}n*eOH4{}"
            "Eio@_ZX|e?fk;*twlgwNR7j|-gCsH{E28Hy+YQG$yM4IicX4yb_B{9>UkCBIyX)$klX=v&^~7<@E-^tl4*~oF_}ixAWA^c>I*vX+"
            "YYfOTSXx$cOH&fdnJl@CkhM|etqV1wZZ1$8p)CtFp<~Jux&^&n&F{X;)J-g(;qExW_+|HhZ>{7kqE<DMT)()Mcv)e?`=6!C^SUol"
            "I*!Q8FYUDW$57<)c=P!`z35m@98;I&9Ck>kr#0mcB4uO@WkDjKtc#>jRuqMxR@ixw;#y)$64Mg)#$rc_X^AXLOiSAvi5?}OQWk+u"
            "#->IUgo2`!9#F}_6_7#RM`?H8W$DhAFYz}V;CwOr-?!HFvdbJXa?c|iaXD4s3xVqU_o(l(*Wt$i?%|8aAb;}xXZTos%$t4?_Xh{N"
            "lW)R4I#wAi(Mi8dOG?7hv84-L32EjQo@1mdRowFyg@vJRE>H`gT2>a7k0P|elu9&!Z2J0c{{T~`Zq0o#%fq{tFWx=h3%uKF;kw)D"
            ">*+k<o;;rqhtB-s^tv}z)akn1Jm<H~_3-^qkM)=3alO^*pC)HJiSI8|e3$&4(NSfgt*5xr!&^r)Jv`1#i(s+*c4h~qr=~EhBo&2V"
            "vW6Czl;T=qUf9G*SeBTS;#y);vAB}4Eioy?v<urBi5ONA3d%+$45*PZvI>yrE1v89chL8?n>_yji{+`Peb0gM{+~Z1;l){N(;@KT"
            "tkvn0=j}IEbu!OkqsMa;^qG0``S5(dujkIOO5G+5Q;Jlhqs5AF!ifc?VQE>pL{$lCSXvf5p-Z7HJi^n=bcJfWo?_6mT2|tv0lE^&"
            "hEe2Rm_(-)0|}5!u8$;r-7~4~I(D&^o=#eP`r1qC<@-MywdvhUZPak@XlKSpJn7}Zk@4f*etZ_%I+^I^XQiH4W_e|c!b|7k&R+f)"
            "w<CiY`}k++A!rvT)B8`Wr^XxYKTD7I@B=Szv&r^*zPC@a-R<|dclO%Y>Ia`5XUy|Ftem(qV)-L0Clf9olI{8XA5JBvB{-Itkak)m"
            "tV>KvaV;?~Y-%K7XcUEEPR3?R3W*cTEO5okJdAO~<yU|yLDDFvQ&Uez2R&Tz!voJOo&xcDhiP{Ee)bzv)9M}_?<@z$@%nx@H@@my"
            "t^Qo@HCG;aFg!6npI<*aLkABf_pZp&!PD|&?_H7Wb&k<xu6iAYS?S@=t*PafUoUa_{=EE2w(#PdOVcLaEHQ?CFoelrX<4Zvm@Nwn"
            "O2?EdbS0r?wrd_xrO+)r$z{xRg({CRX;@h|6(H$^q9Y(pgyk|KAZ0{~!m=)q!myB6iCbZ&O2oC(a>FAmGI7fnkscAF64Mg!)Jf}X"
            "`u_k>+XgPFt%z_Mr$1hN{{TDI+xD*&z}MQL$E}tb^W*Rz-sSNvF(6+X75S6TgM$3e{T-%<X?lL9TxaQYjydmVhlk6<o9R0L089S>"
            "n*RXTm+f%DSU`LXPwvYum4*G^{{H|6Z=YzoZWuXZt(KyF+;Dk+9t-Ey?Oxj)PeZrW&n|qkOin&$HzpMo=YxrP+Zo5xFfTi2ySVK}"
            "^HaQNY3b<V@x#Y^BkK5mSCzQkZZ}zXw;I{%JgMG!4t>Y6#GKwdQ6CgNkB^TR!gLW4FoQ6qX0)tX1x!my&1hKig|39OEY^jOC{pN4"
            "Ld|Gdi9(k`S#u?qF_IOkJl0Vwi9|LNl;Wa;CP=6&qEZ-E5(>hwX+;HilEk#cy|I{);#y)$64Mf$jYN+U(-K&fh3$<*lof>`SxC&G"
            "l@cnff}|6aS456XQn6$mFj`g?m5nF`P%R4!LdTRVbPGbl(6bVR?ty4nT2?%vOQ9^eg{CqVZ1dtG;t_TeAej*!NM&Ils4E1NP*;f{"
            "uM(Y%OqGdgiB2V^CGCwwm5FJIP9>%#?Tti~6@-GYr(;ti3W*gIpverJr(G5Zi7^pY!D(1pRy2X83qs9kSn`FggtRQyg^wss=u1M)"
            "XjzFumqJ=r7L|`8w83Q(jDR+L6O_w_LB>=PD+=hkLkhw{UL`vZGFBy~B{-Itm$ow!Rwbq-IF^`~wlxw~C1ET|!kvvwj4LD+6pTt4"
            "REgF_!XhFg%qdy4tXTz27KNJ7vE>Wh320fZ3m#CV(3XXo(6bVR?u4|gEh`>SrO+)bEThQ1Fo={y4FA~"
        ),
        "glass": (
            "iBL{Q4GJ0x0000DNk~Le0000X0000v2nGNE0Jvd7nE(I*R7pfZRCwCW)GaW?Q51&p$2+^TLE0v1n<Pz=v{gtHicu)5m@O0%g<=#6"
            "#V9Ljk|s%-ByE#~-68FaG5hiVxc9!oEjRt<nRCt*Kn;D@5Uy9DB0xP5t~WqbL0@hJp#FbAOoKk%2wRQ6h&rh2Mp$YLL(G6a+=%2g"
            "Mj>WF?`}lWD>@F*0KK^p$!22`Vh;4`MkJ|`1u+kLaU-H{N>;=I=-G{kIvaTqi=ZbrB3g~Sh$YaY8xf^O5kwR8;6?<mQ53NPx_2Xj"
            "UePj$HPEda5o|WfA~rzRZbXn8ArM=jOE;qQri4Q5fX>~BQnL{f(E^>i5ru1nM(l%*-H1XpVjvDchi*jf8nF;Zptc*4>x#xioPhS+"
            "h|IGQ8*v8Obt5v>NP)NjZMzW@HzgI~3bg4)jGc{?h#Szl8!@s*YQ!CA)r}Zh!-434mVf{K0R1FMo+7Ld*#H0l07*qoM6N<$f&"
        ),
        "turned": (
            "|JeWF01!$>Nk#wx0RR9200961|KR{4MR;ju002!*04e|g00;m90TKWM0000100sa600000|JwjV00jdC1Ox*G1Ox;H1qB8N3<w7Y"
            "2L}%e3keJn4-yg)4-pX)791B76dDx~5f~vD8XX-UA0HDJA|xUnBpe<e9{<1q3kU!x09pY75di<h0384T0|5X60|5X40000000006"
            "2M7fN2><~C1pmYUG7ta(0tEsC1_l8I00000000330{{dC1`!7c5)&aJF+ov*krfsrVR6A@6hcy=vH#it2mt{A06ze$Co8PB**s(3"
            "6?&I@A&EyobPk8cBF$sEoT*N@(p)De&I)$DX)dE)W?^lTIDzhqH&^OS+d5{pQlNv$$NGqKM5G+LwV+I?C20@mKCwpcmav*uoypOf"
            "R|!%Aa3kw$GD)`f_f)H_a4E(VbLjyaAeQ)srCk>*qam{43O=#RxAF51?QS~K`)HIaAo*i4p`k1I*6go3^1DcqZOkjn8H82ec(}W="
            "u%PL|o_vnK$f%{OSMUrg>v(y>J5z6kyoVB(iOzgsEhvYpRkV((1yObFTF*?Bi&IWDj3geSGIy(WiCQ}38*?2ofM5e+R^ghiuBz%X"
            "0piIK!@gR{s^4-nR+Yp9iB1RR8+THZXYDyH52m-J@$Mi`W^%%jqZd8I;Neq^xI&NM#&*ilnTz)8cfl@@qw5}RG0aNph1}=(yb`19"
            "5;aZ7=4w+@9ZxmouiTRi8l~dm+9R5M;1;b>dZ7OR4-q*q&d}RI$@;4<EuwOv;T?ckRQ9dgLzq$!Lw~4+cU^KWwRV{%*Tf5$z(07U"
            "c7sAq3r`)XIF1v_&T;mMs{EK;;kf2l2bh#hkH3sOcehX!eI%sNT2~2L5}pwrt;7pUW|J=;rsT^9*CH`?=%0XXR_d;=vbm%$3iHlm"
            "KSdSrJ)mASwRTrJrGT$I<`Hy@N!f}_oX0GlYY1O=nn8u%*L35lf_pmMc6M>Rpq!s5vo`l+CR{S=+Qu+@p|7m<#;8_{ttDY3Hh<)G"
            "-twKgwM8SU!F%@?(nEHJhOG2$Mql+3PT6Vex%J`dg44#7K2A^O4ENPiH7ojwZ?vq0xP+9C%oc8e;co4kiA6_YZ?=F(<}<EQ^1jF="
            "*d2!_Qay7Sms);a*u^$bb{wd<o}PIyPiNR+R+Sw^o~A*A-TY~Zo|R`fw}9my{{Sd<X<dX&!%9;=Bf={yDv-?@k`_`Egv8yud(0wH"
            "=~mtFBLKonYc}%hcgu5bAgFUQoPFY^-Q8^z9WoU5*TPF!$D}Lv14QDPo~}BM?5l{tcBVY5yLB>>i9EzLGCF#}#`|Wt=B+zjqy5c-"
            "k?9<}x>v&VLd&*W?5X}xDfW-ex+ebsq0zlKwNcSi3uLK2(Nfz~23fZ$jFbRTCenMnkOY7K*#"
        ),
    }.items()
}
