"""Geometries: as data, on the sphere, on an ellipsoid, and in indexes.

    geometry  GeoJSON, put together and taken apart       shapes    on the sphere, by S2
    geodesy   distances, circles and units                karney    geodesics on an ellipsoid, by their series
    clip      lines and polygons that meet                edges     the nearest point of a chain
    index     the cells a geometry is found under         reads     through such an index

One rule: answers agree with RethinkDB's to the last digit it prints.
"""
