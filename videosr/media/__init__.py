"""Files in and out: the only rooms that know PyAV.

Begin with `source` and `decoder` for the way in, with `encoder` and `muxer` for the way out. The other modules each
know one thing that these, or what stands over them, need:

    in, a file      source: numbered, program_stream, tiles (heif), limits
                    decoder: pictures (decoders, sidedata, jpegs, cropping, avi, nvdec, planes), joined, undated, tiffs,
                    clock, fields, deinterlace, colorinfo
                    made alike: orientation, conform, rescale, resize
    out, a file     encoder: codecs, encoders, riders, nvenc, segments
                    muxer: template, copies, convert (audio_format, resample, cues), part (timecode), chapters,
                    languages
                    pictures: sequence, images, picturedata
    a live stream   live_source, live_input (live_fields), live_codec, live_output; opening
    before work     probe: containers, rehearsal
    afterwards      verify: readback (payload), similarity, tags
    Matroska        matroska (its elements), matroska_header, matroska_more (what FFmpeg does not carry)
    with a picture  captions, hdr, hdr10plus, dolby, immersive; user_data, which holds them
    FFmpeg's log    logs
"""
