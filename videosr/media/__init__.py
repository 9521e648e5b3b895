"""Files in and out: the only rooms that know PyAV.

Begin with `source` and `decoder` for the way in, with `encoder` and `muxer` for the way out. The other modules each
know one thing that these, or what stands over them, need:

    in, a file      source: program_stream, transport_stream, limits
                    decoder: pictures (decoders, tail, sidedata, cropping, avi, nvdec, planes), joined, undated,
                    clock, fields (repeats), deinterlace, colorinfo
                    made alike: orientation, conform, rescale, resize
    out, a file     encoder: codecs, encoders, riders, nvenc, segments
                    muxer: videotrack (template), boxes, copies, convert (audio_format, resample, cues), part
                    (timecode), chapters, languages
    before work     probe: containers, rehearsal, adts
    with a picture  captions, hdr, hdr10plus, dolby, immersive; user_data, which holds them
    FFmpeg's log    logs

Four have rooms of their own:

    stills          images, picturedata; heif (tiles), tiffs, jpegs; as a film: numbered, mixed, sequence
    matroska        elements, header, more (what FFmpeg does not carry)
    live            source (demuxer_options), input (fields), codec, output; opening is beside it
    checks          verify: readback, tracks (payload), similarity (reduction, shift), tags
"""
