"""Kernels of MobileNet: arrays in, arrays out. They know no graph, model, file or image.

Every kernel has a definition in `reference.py` and a fast form in the module named here; both give the same bits.

    conv2d            x (N,H,W,C_in), weight (C_out,K_h,K_w,C_in), bias (C_out) -> (N,H_out,W_out,C_out)   conv2d.py
    depthwise_conv2d  x (N,H,W,C), weight (K_h,K_w,C), bias (C) -> (N,H_out,W_out,C)                       depthwise.py
    pointwise_conv2d  x (N,H,W,C_in), weight (C_out,C_in), bias (C_out) -> (N,H,W,C_out)                   pointwise.py
    average_pool2d    x (N,H,W,C) -> (N,H_out,W_out,C)                                                     pooling.py
    resize_bilinear   x (N,H,W,C) -> (N,height,width,C)                                                    resize.py
    add, concatenate  x (N,H,W,C_x), y (N,H,W,C_y) -> (N,H,W,C)                                            maps.py
    activation        x (N,H,W,C) -> the same                                                              maps.py
    fake_quantize     x (N,H,W,C) -> the same                                                              maps.py

The fast forms are called by `machine.run`, which walks a program of `step.STEP` records. They are made of register
tiles (`tile.py`, `filter.py`) over vector primitives (`simd.py`). `geometry.py` does all padding arithmetic.
What quantised networks need, the same for bytes, is in `quantized/`. `detection.py`, defined by
`reference_detection.py`, makes detections of a detector's raw outputs in one call of its own.
"""
